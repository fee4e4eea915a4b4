import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { freezeAndThaw } from '../support/chaos-freeze.ts';
