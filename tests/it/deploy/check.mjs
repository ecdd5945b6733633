// Holds Kubernetes objects against the types and schemas of Kubernetes and of the Prometheus Operator.
//
//   node check.mjs MODELS OBJECTS
//
// MODELS is where scripts/setup has put the npm packages kubernetes-models, @kubernetes-models/prometheus-operator and
// typescript; OBJECTS a JSON file, [{"name": "a.yaml", "object": {...}}, ...]. Each mistake is a line on stdout, and then the exit
// code is 1. A field that is not known is found by the compiler, since the schemas let it pass; patterns and required fields of
// any depth by the schemas.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [models, file] = process.argv.slice(2);
const objects = JSON.parse(readFileSync(file, "utf8"));
const require = createRequire(join(models, "package.json"));
const ts = require("typescript");
const mistakes = [];

const moduleOf = ({ apiVersion, kind }) => {
  const own = apiVersion.startsWith("monitoring.coreos.com/");
  return `${own ? "@kubernetes-models/prometheus-operator" : "kubernetes-models"}/${apiVersion}/${kind}`;
};

// One literal for each object, so that the compiler complains of every field that the type lacks.
const imports = objects.map(({ object }, at) => `import type { I${object.kind} as T${at} } from "${moduleOf(object)}";`);
let source = imports.join("\n") + "\n";
const starts = [];
objects.forEach(({ object }, at) => {
  starts.push(source.length);
  source += `export const o${at}: T${at} = ${JSON.stringify(object, null, 1)};\n`;
});
const path = join(models, "manifests.ts");
const options = {
  noEmit: true,
  strict: true,
  skipLibCheck: true,
  types: [],
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
};
const host = ts.createCompilerHost(options);
const { getSourceFile, fileExists, readFile } = host;
host.fileExists = (name) => name === path || fileExists(name);
host.readFile = (name) => (name === path ? source : readFile(name));
host.getSourceFile = (name, ...more) =>
  name === path ? ts.createSourceFile(name, source, options.target) : getSourceFile(name, ...more);
const program = ts.createProgram([path], options, host);
for (const found of ts.getPreEmitDiagnostics(program)) {
  const text = ts.flattenDiagnosticMessageText(found.messageText, " ");
  const line = source.slice(source.lastIndexOf("\n", found.start) + 1, source.indexOf("\n", found.start)).trim();
  const at = starts.findLastIndex((start) => found.start >= start);
  const name = at < 0 ? "the imports" : objects[at].name;
  mistakes.push(`${name}: at ${line}: ${text}`);
}

for (const { name, object } of objects) {
  const model = await import(pathToFileURL(join(models, "node_modules", `${moduleOf(object)}.js`)));
  try {
    new model[object.kind](object).validate();
  } catch (error) {
    mistakes.push(`${name}: ${error.message}`);
  }
}

for (const mistake of mistakes) {
  console.log(mistake);
}
process.exitCode = mistakes.length === 0 ? 0 : 1;
