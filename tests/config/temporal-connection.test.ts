import { join } from 'node:path';
import { Connection } from '@temporalio/client';
import { NativeConnection } from '@temporalio/worker';
import { describe, expect, it } from 'vitest';
import { errorOf, faultsOf, folderWith, load } from './overlay.ts';

describe("Temporal's own configuration", () => {
  it('is a server on this machine where nothing is set', () => {
    expect(load().temporal).toMatchObject({
      namespace: 'default',
      connection: { address: '127.0.0.1:7233' },
    });
  });

  it('passes address, namespace, key, TLS and headers on', () => {
    const { temporal } = load({
      env: {
        TEMPORAL_ADDRESS: 'temporal.example.com:7233',
        TEMPORAL_NAMESPACE: 'weir.a1',
        TEMPORAL_API_KEY: 'key',
        TEMPORAL_TLS: 'true',
        TEMPORAL_TLS_SERVER_NAME: 'other.example.com',
        TEMPORAL_TLS_CLIENT_CERT_DATA: 'CERT',
        TEMPORAL_TLS_CLIENT_KEY_DATA: 'KEY',
        TEMPORAL_GRPC_META_TEAM: 'blue',
      },
    });
    expect(temporal.namespace).toBe('weir.a1');
    expect(temporal.connection).toEqual({
      address: 'temporal.example.com:7233',
      apiKey: 'key',
      tls: {
        serverNameOverride: 'other.example.com',
        clientCertPair: { crt: new TextEncoder().encode('CERT'), key: new TextEncoder().encode('KEY') },
      },
      metadata: { team: 'blue' },
    });
  });

  it('can be given to the client and to the worker, and stays as it is', async () => {
    const { connection } = load({
      env: {
        TEMPORAL_ADDRESS: '127.0.0.1:1',
        TEMPORAL_API_KEY: 'k',
        TEMPORAL_TLS: 'false',
        TEMPORAL_GRPC_META_A: 'b',
      },
    }).temporal;
    await Connection.lazy(connection).close();
    await expect(NativeConnection.connect(connection)).rejects.toThrow(/ConnectionRefused/);
    expect(connection.metadata).toEqual({ a: 'b' });
  });

  it('reads a profile of its file, below the environment', () => {
    const folder = folderWith({
      'temporal.toml':
        '[profile.default]\naddress = "a:1"\n[profile.prod]\naddress = "b:2"\nnamespace = "n"\napi_key = "k"\n',
    });
    const TEMPORAL_CONFIG_FILE = join(folder, 'temporal.toml');
    expect(load({ env: { TEMPORAL_CONFIG_FILE } }).temporal.connection).toEqual({ address: 'a:1' });
    expect(
      load({ env: { TEMPORAL_CONFIG_FILE, TEMPORAL_PROFILE: 'prod', TEMPORAL_NAMESPACE: 'm' } }).temporal,
    ).toMatchObject({
      namespace: 'm',
      connection: { address: 'b:2', apiKey: 'k', tls: true },
    });
  });

  it.each(['false', '0'])('turns TLS off by TEMPORAL_TLS=%s', (text) => {
    expect(load({ env: { TEMPORAL_TLS: text, TEMPORAL_API_KEY: 'k' } }).temporal.connection.tls).toBe(false);
  });

  it.each(['[::1]:7233', 'localhost', 'temporal:7233', '10.0.0.1:1'])('accepts the address %s', (address) => {
    expect(load({ env: { TEMPORAL_ADDRESS: address } }).temporal.connection.address).toBe(address);
  });
});

describe('a Temporal configuration that is refused', () => {
  it.each([
    [{ TEMPORAL_TLS: 'yes' }, 'temporal.connection.tls', 'true or false'],
    [
      { TEMPORAL_ADDRESS: 'http://localhost:7233' },
      'temporal.connection.address',
      'host:port, without a scheme',
    ],
    [{ TEMPORAL_ADDRESS: 'a b' }, 'temporal.connection.address', 'host:port, without a scheme'],
    [
      { TEMPORAL_TLS_CLIENT_CERT_DATA: 'C' },
      'temporal.connection.tls',
      'a client certificate and its key, or neither',
    ],
    [
      { TEMPORAL_TLS_CLIENT_KEY_DATA: 'C' },
      'temporal.connection.tls',
      'a client certificate and its key, or neither',
    ],
    [{ TEMPORAL_PROFILE: 'absent' }, 'temporal.connection', 'a configuration that Temporal can read'],
    [
      { TEMPORAL_TLS_CLIENT_CERT_PATH: '/nowhere/c', TEMPORAL_TLS_CLIENT_KEY_DATA: 'K' },
      'temporal.connection',
      'a configuration that Temporal can read',
    ],
  ])('refuses %j', (env, key, expected) => {
    expect(faultsOf({ env })).toEqual([expect.objectContaining({ key, expected })]);
  });

  it('never quotes a file that is no TOML', () => {
    const folder = folderWith({ 'temporal.toml': '[profile.default]\napi_key = "hush" "hush"\n' });
    const { message } = errorOf({ env: { TEMPORAL_CONFIG_FILE: join(folder, 'temporal.toml') } });
    expect(message).toContain('Invalid TOML document');
    expect(message).not.toContain('hush');
  });
});
