// Builds the page: node web/build.mjs --deps DIR --out DIR
// DIR of --deps gets the packages of package-lock.json (only when that file changed), DIR of --out what is embedded.
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";

const mostBytes = 150_000;   // Of all that is embedded, compressed.
const here = dirname(fileURLToPath(import.meta.url));
const { values } = parseArgs({ options: { deps: { type: "string" }, out: { type: "string" } } });
const deps = resolve(values.deps);
const out = resolve(values.out);

function fail(message) {
  console.error(`web: ${message}`);
  process.exit(1);
}

function run(command, args, cwd) {
  const done = spawnSync(command, args, { cwd, stdio: ["ignore", 2, 2] });
  if (done.error) fail(`${command}: ${done.error.message}`);
  return done.status === 0;
}

function install() {
  const lock = readFileSync(join(here, "package-lock.json"));
  const stamp = join(deps, ".installed-lock.json");
  if (existsSync(stamp) && readFileSync(stamp).equals(lock)) return;
  mkdirSync(deps, { recursive: true });
  rmSync(stamp, { force: true });
  for (const name of ["package.json", "package-lock.json"]) copyFileSync(join(here, name), join(deps, name));
  console.error("web: installing the packages of web/package-lock.json");
  if (!run("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], deps))
    fail(`npm ci failed. The page needs these packages once: where there is no network, copy ${deps} from a build that has them.`);
  writeFileSync(stamp, lock);
}

function check() {
  const modules = join(deps, "node_modules");
  const config = join(out, "tsconfig.json");
  writeFileSync(config, JSON.stringify({
    extends: join(here, "tsconfig.json"),
    compilerOptions: {
      paths: { preact: [join(modules, "preact")], "preact/*": [join(modules, "preact", "*")], uplot: [join(modules, "uplot")] },
      typeRoots: [], types: [], noEmit: true, incremental: true, tsBuildInfoFile: join(out, "tsconfig.tsbuildinfo"),
    },
    include: [join(here, "src")],
  }));
  if (!run(process.execPath, [join(modules, "typescript", "bin", "tsc"), "-p", config], here)) process.exit(1);
}

async function bundle() {
  const esbuild = createRequire(join(deps, "package.json"))("esbuild");
  await esbuild.build({
    entryPoints: { app: join(here, "src", "main.tsx"), style: join(here, "src", "style.css") },
    outdir: out, bundle: true, minify: true, format: "esm", target: "es2020", jsx: "automatic", jsxImportSource: "preact",
    nodePaths: [join(deps, "node_modules")], legalComments: "none", charset: "utf8", logLevel: "warning",
  }).catch(() => process.exit(1));
  for (const name of ["index.html", "icon.svg"]) copyFileSync(join(here, name), join(out, name));
}

if (Number(process.versions.node.split(".")[0]) < 18) fail(`Node.js 18 or later is needed; this is ${process.version}`);
mkdirSync(out, { recursive: true });
install();
check();
await bundle();
const size = ["app.js", "style.css", "index.html", "icon.svg"]
  .reduce((sum, name) => sum + gzipSync(readFileSync(join(out, name))).length, 0);
if (size > mostBytes) fail(`the page has ${size} bytes compressed; at most ${mostBytes} are allowed`);
