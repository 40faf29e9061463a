-- The token of this prefix, and whether the account that owns it, if any, is active. Each request asks.
SELECT tokens.id, prefix, hashed_secret, name, owner_id, worker_name, scopes, created_at,
    expires_at, revoked_at, last_used_at, owner.is_active
FROM tokens LEFT JOIN auth_user owner ON owner.id = tokens.owner_id
WHERE prefix = %(prefix)s
