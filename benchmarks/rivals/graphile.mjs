// graphile-worker (https://worker.graphile.org).
import { createRequire } from "node:module";
import { main, mark, shell } from "../adapter-lib/benchlib.mjs";

// Its packages are in .bench/node, which Node.js would not look into for this file.
const { Logger, makeWorkerUtils, run } = createRequire(`${process.env.BENCH_NODE}/`)("graphile-worker");
const connectionString = process.env.BENCH_DSN;
const logger = new Logger(() => () => {});
const AT_ONCE = 10_000;
// It calls the lowest number the most urgent.
const URGENT = 0;
let utils;

const BEST = { concurrentJobs: 24, maxPoolSize: 25, localQueue: { size: 500 } };
const SHELL = { concurrentJobs: 8, maxPoolSize: 10, localQueue: { size: 100 } };
const EAGER = { connectionString, completeJobBatchDelay: 0, failJobBatchDelay: 0 };

main({
  info: {
    best: "concurrentJobs 24, localQueue.size 500, completeJobBatchDelay 0; latency and churn alike",
    pending: "SELECT EXISTS (SELECT FROM graphile_worker._private_jobs)",
    finished: "",
  },
  async open() {
    utils = await makeWorkerUtils({ connectionString, logger });
    await utils.migrate();
  },
  close: () => utils.release(),
  async bulk(n, kind) {
    for (let start = 0; start < n; start += AT_ONCE) {
      const length = Math.min(AT_ONCE, n - start);
      await utils.addJobs(Array.from({ length }, () => ({ identifier: kind, payload: {} })));
    }
  },
  async single(n) {
    for (let i = 0; i < n; i++) await utils.addJob("noop", {});
  },
  urgent: (t) => utils.addJob("noop", { t }, { priority: URGENT }),
  many: (priorities) =>
    utils.addJobs(priorities.map((p) => ({ identifier: "noop", payload: {}, priority: 1 + p }))),
  worker: (profile) =>
    run({
      logger,
      preset: { worker: { ...EAGER, ...(profile === "shell" ? SHELL : BEST) } },
      taskList: { noop: (payload) => mark(payload?.t), shell },
    }),
});
