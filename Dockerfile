# One image, four commands: gunicorn (the default) and manage.py's run_scheduler, run_recovery
# and run_worker. Health checks are in docker-compose.yml and k8s/: each command has its own.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
COPY requirements.txt /tmp/
RUN python -m venv --without-pip /opt/venv \
    && python -m pip --python /opt/venv/bin/python install \
        --no-cache-dir --require-hashes -r /tmp/requirements.txt

FROM ${PYTHON_IMAGE}
# A published port reaches no loopback address inside a container, hence 0.0.0.0; and a container
# is nobody's own machine, so nothing that is missing is made up (DTS_LOCAL).
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DTS_LOCAL=False \
    ORCH_HOST=0.0.0.0 \
    DTS_STATE_DIR=/var/lib/dts \
    DTS_LIVENESS_FILE=/tmp/dts-alive
RUN useradd --uid 10001 --user-group --create-home --home-dir /var/lib/dts --skel /dev/null dts
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY . .
# Bytecode now, since a read-only container can keep none; static files under a key of no use.
RUN python -m compileall -q . \
    && DATABASE_URL=postgresql:///unused SECRET_KEY=unused ALLOWED_HOSTS=unused \
        python manage.py collectstatic --noinput
USER 10001:10001
EXPOSE 8080
CMD ["gunicorn"]
