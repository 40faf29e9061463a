// What benchlib.py is, for adapters in Node.js.
import { execFile } from "node:child_process";
import fs from "node:fs";

const RECORD_BYTES = 16;
const CHURN_BATCH = 500;
const URGENT_SECONDS = 0.1;
const PRIORITIES = 10;

const fd = process.env.BENCH_MARK ? fs.openSync(process.env.BENCH_MARK, "a") : -1;
const record = Buffer.alloc(RECORD_BYTES);
const now = () => (performance.timeOrigin + performance.now()) / 1000;
const sleep = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
const say = (n, seconds) => console.log(`ENQ ${n} ${seconds}`);

export function mark(submittedAt = 0) {
  record.writeDoubleLE(now(), 0);
  record.writeDoubleLE(submittedAt || 0, 8);
  fs.writeSync(fd, record);
}

export const shell = () =>
  new Promise((done, fail) =>
    execFile("/bin/sh", ["-c", "true"], (error) => (error ? fail(error) : done(mark()))));

async function timed(submit, n) {
  const beganAt = now();
  await submit();
  say(n, now() - beganAt);
}

async function paced(seconds, step, submit) {
  const beganAt = now();
  let n = 0;
  while (now() - beganAt < seconds) {
    n += 1;
    await sleep(Math.max(0, beganAt + n * step - now()));
    await submit(now());
  }
  say(n, now() - beganAt);
}

async function churned(seconds, backlog, many, urgent) {
  const marked = () => fs.fstatSync(fd).size / RECORD_BYTES;
  const [until, before] = [now() + seconds, marked()];
  let submitted = 0, urgentAt = 0;
  while (now() < until) {
    if (now() >= urgentAt) {
      submitted += 1;
      urgentAt = now() + URGENT_SECONDS;
      await urgent(now());
    } else if (submitted - (marked() - before) < backlog) {
      submitted += CHURN_BATCH;
      await many(Array.from({ length: CHURN_BATCH }, (_, n) => n % PRIORITIES));
    } else await sleep(0.005);
  }
  say(submitted, seconds);
}

// verbs: { info, setup, bulk(n, kind), single(n), pace(now), worker(profile), many, urgent, end }
export async function main(verbs) {
  const [verb, first, second] = process.argv.slice(2);
  if (verb === "info") console.log(JSON.stringify(verbs.info));
  else if (verb === "worker") await verbs.worker(first);
  else {
    await verbs.open();
    if (verb === "bulk") await timed(() => verbs.bulk(+first, second), +first);
    else if (verb === "single") await timed(() => verbs.single(+first), +first);
    else if (verb === "pace") await paced(+first, +second, verbs.urgent);
    else if (verb === "churn") await churned(+first, +second, verbs.many, verbs.urgent);
    else if (verb !== "setup") throw new Error(`no such verb here: ${verb}`);
    await verbs.close();
  }
}
