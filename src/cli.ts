#!/usr/bin/env node
// The entry of the command line. It only makes starting quick: compiled code is kept between runs, which takes two thirds off the
// second start. The commands are in cli/program.ts; nobody imports this file.

import { enableCompileCache } from 'node:module';

enableCompileCache();
const { runCommandLine } = await import('./cli/program.ts');
await runCommandLine();
