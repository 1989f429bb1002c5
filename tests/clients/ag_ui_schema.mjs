// Checks AG-UI events, read as a JSON array, against the schema that @ag-ui/core publishes. Prints the errors.
// The schema lets fields pass that it does not know; here they are errors, too.

import { EventSchemas } from '@ag-ui/core/schemas'
import { text } from 'node:stream/consumers'

const fields = new Map(EventSchemas.options.map((option) => [option.shape.type.value, Object.keys(option.shape)]))

function errorsOf(event) {
  const parsed = EventSchemas.safeParse(event)
  if (!parsed.success) return parsed.error.issues.map(({ path, message }) => `${event.type} ${path.join('.')}: ${message}`)
  return Object.keys(event).filter((name) => !fields.get(event.type).includes(name)).map((name) => `${event.type} ${name}: unknown`)
}

console.log(JSON.stringify(JSON.parse(await text(process.stdin)).flatMap(errorsOf)))
