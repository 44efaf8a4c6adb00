// Type-checks dashboards, each as a literal of the type Dashboard: node check.mjs FILE.json…
// Says every error on standard error and then ends with 1. Writes nothing.

import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const here = dirname(fileURLToPath(import.meta.url));
const config = ts.readConfigFile(join(here, 'tsconfig.json'), ts.sys.readFile);
const { options } = ts.convertCompilerOptionsFromJson(config.config.compilerOptions, here);

const literals = new Map(
  process.argv.slice(2).map((file, i) => {
    const text = readFileSync(file, 'utf8');
    JSON.parse(text); // a literal could also be an expression
    const source = `import type { Dashboard } from './dashboard';\nexport const it: Dashboard = ${text};\n`;
    return [join(here, `literal-${i}.ts`), { file: resolve(file), source }];
  }),
);
if (literals.size === 0) {
  console.error('say which files');
  process.exit(2);
}

const host = ts.createCompilerHost(options);
const { fileExists, readFile } = host;
host.fileExists = (name) => literals.has(name) || fileExists(name);
host.readFile = (name) => literals.get(name)?.source ?? readFile(name);

const problems = ts.getPreEmitDiagnostics(ts.createProgram([...literals.keys()], options, host));
for (const problem of problems) {
  const name = problem.file?.fileName ?? '';
  const line = problem.file?.getLineAndCharacterOfPosition(problem.start ?? 0).line ?? 0;
  const known = literals.get(name);
  const place = known ? `${known.file}:${line}` : `${name}:${line + 1}`;
  console.error(`${place}: ${ts.flattenDiagnosticMessageText(problem.messageText, '\n  ')}`);
}
process.exit(problems.length === 0 ? 0 : 1);
