// An empty variable counts as not set, everywhere. The AI SDK reads two addresses by itself, as soon as it is imported, and ends the
// process over an empty one; so this runs before that import.

for (const name of ['OPENAI_BASE_URL', 'ANTHROPIC_BASE_URL'])
  if (process.env[name] === '') delete process.env[name];
