// An identity provider that others wrote (oidc-provider, certified by the OpenID Foundation), set up as a plant's would be: people log in by a form, with
// a second factor or without one. Arguments: the folder of its package, the port (0: any), key and certificate for TLS, and the algorithm by which it signs, which is also the name of
// its key; and `binds`, if tokens by a device code have the nonce, too.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { generateKeyPairSync } from 'node:crypto';

const [folder, port, key, certificate, alg, binds] = process.argv.slice(2);
const { Provider } = await import(`${folder}/node_modules/oidc-provider/lib/index.js`);

const kinds = { ES256: ['ec', { namedCurve: 'P-256' }], EdDSA: ['ed25519', {}] };
const { privateKey } = generateKeyPairSync(...(kinds[alg] ?? ['rsa', { modulusLength: 2048 }]));
const signing = { ...privateKey.export({ format: 'jwk' }), kid: alg, use: 'sig', alg };

const form = (action, fields) =>
  `<form method="post" action="${action}">${fields.map((name) => `<input name="${name}">`).join('')}<button>Go on</button></form>`;

const server = createServer({ key: readFileSync(key), cert: readFileSync(certificate) });
server.listen(Number(port), '127.0.0.1', () => {
  const issuer = `https://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'penstock',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'urn:ietf:params:oauth:grant-type:device_code'],
      response_types: ['code'],
      redirect_uris: ['http://127.0.0.1/callback'],
      id_token_signed_response_alg: alg,
      require_auth_time: true,
    }, {
      client_id: 'other',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      redirect_uris: ['http://127.0.0.1/callback'],
      id_token_signed_response_alg: alg,
    }],
    jwks: { keys: [signing] },
    claims: { openid: ['sub', 'amr', 'auth_time'], profile: ['preferred_username'] },
    conformIdTokenClaims: false,
    enabledJWA: { idTokenSigningAlgValues: [alg] },
    pkce: { required: () => true },
    cookies: { keys: ['a key for tests'] },
    features: {
      devInteractions: { enabled: false },
      deviceFlow: {
        enabled: true,
        userCodeInputSource: (ctx, text) => { ctx.body = text; },
        userCodeConfirmSource: (ctx, text) => { ctx.body = text; },
      },
    },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, preferred_username: `${id} \u202e of the works` }) }),
    // The plant's own client: nobody is asked whether it may know who they are.
    loadExistingGrant: async (ctx) => {
      const grant = new ctx.oidc.provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
      grant.addOIDCScope('openid profile');
      await grant.save();
      return grant;
    },
    ttl: { Interaction: 600, Grant: 600, Session: 600, DeviceCode: 600, AccessToken: 600, IdToken: 600, AuthorizationCode: 60 },
    interactions: { url: (_, interaction) => `/login/${interaction.uid}` },
  });
  // RFC 8628 has no nonce, and this provider keeps one that is sent without using it. Others put it into the token (Keycloak does).
  if (binds) {
    const { save } = provider.DeviceCode.prototype;
    provider.DeviceCode.prototype.save = function saved(...rest) {
      this.nonce ??= this.params?.nonce;
      return save.apply(this, rest);
    };
  }
  provider.use(async (ctx, next) => {
    if (!ctx.path.startsWith('/login/')) return next();
    const interaction = await provider.interactionDetails(ctx.req, ctx.res);
    ctx.respond = false;
    // Of programs on people's machines it asks once more; the form before was meant for both.
    if (interaction.prompt.name === 'consent') {
      return provider.interactionFinished(ctx.req, ctx.res, { consent: {} }, { mergeWithLastSubmission: true });
    }
    ctx.respond = true;
    if (ctx.method === 'GET') {
      ctx.type = 'html';
      ctx.body = form(`/login/${interaction.uid}`, ['person', 'factor']);
      return undefined;
    }
    const body = [];
    for await (const part of ctx.req) body.push(part);
    const fields = new URLSearchParams(Buffer.concat(body).toString());
    const person = fields.get('person');
    ctx.respond = false;
    if (!person) return provider.interactionFinished(ctx.req, ctx.res, { error: 'access_denied', error_description: 'nobody logged in' });
    const amr = fields.get('factor') ? ['pwd', 'otp', 'mfa'] : ['pwd'];
    return provider.interactionFinished(ctx.req, ctx.res, { login: { accountId: person, amr, remember: false } });
  });
  server.on('request', provider.callback());
  console.log(issuer);
});
