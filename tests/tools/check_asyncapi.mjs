// Checks docs/asyncapi.yaml with the parser of AsyncAPI, the Avro schemas with it:
//
//   npm install --prefix DIR @asyncapi/parser @asyncapi/avro-schema-parser
//   node tests/tools/check_asyncapi.mjs DIR docs/asyncapi.yaml
import { createRequire } from "node:module";
import { resolve } from "node:path";

const [directory, file] = process.argv.slice(2);
const load = createRequire(resolve(directory, "package.json"));
const { Parser, fromFile } = load("@asyncapi/parser");
const { AvroSchemaParser } = load("@asyncapi/avro-schema-parser");

const parser = new Parser();
parser.registerSchemaParser(AvroSchemaParser());
const { document, diagnostics } = await fromFile(parser, file).parse();
for (const found of diagnostics) {
  console.log(`${["error", "warning", "information", "hint"][found.severity]}: ${found.path.join(".")}: ${found.message}`);
}
if (document === undefined || diagnostics.some((found) => found.severity === 0)) process.exit(1);
console.log(`${document.channels().all().length} channels, ${document.components().messages().all().length} messages`);
