// Clients for contract.mjs. `send`, `resume` and `shown` resolve with the reply as it is shown: its text, and an error's text.
// Each is loaded by itself, as some want a browser's globals, with which others refuse to work.

const files = {
  'ai-sdk': ['./contract_ai_sdk.mjs', 'AiSdkClient'],
  workflow: ['./contract_ai_sdk.mjs', 'WorkflowClient'],
  tanstack: ['./contract_tanstack.mjs', 'TanStackClient'],
  'tanstack-hydrated': ['./contract_tanstack.mjs', 'HydratedTanStackClient'],
  'ag-ui': ['./contract_ag_ui.mjs', 'AgUiClient'],
  openai: ['./contract_openai.mjs', 'OpenAiClient'],
  eventsource: ['./contract_event_source.mjs', 'EventSourceClient'],
  'eventsource-client': ['./contract_event_source.mjs', 'EventSourceClientClient'],
  'fetch-event-source': ['./contract_event_source.mjs', 'FetchEventSourceClient'],
}

export async function load(name) {
  const [file, className] = files[name]
  return (await import(file))[className]
}
