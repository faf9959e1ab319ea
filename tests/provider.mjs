// An OpenID provider that nobody here wrote, on loopback, with the device flow. What a person would say in the browser is
// said by a call: /answer?user_code=CODE&who=SUBJECT agrees as that subject, without `who` it is a no.
import http from 'node:http';

const { default: Provider } = await import(`${process.env.FRACAS_OIDC}/oidc-provider/lib/index.js`);
const [port, people] = [Number(process.argv[2]), JSON.parse(process.argv[3])];
const issuer = `http://127.0.0.1:${port}`;
const scope = 'openid profile email';
const provider = new Provider(issuer, {
  clients: [{
    client_id: 'fracas',
    client_secret: process.argv[4],
    grant_types: ['urn:ietf:params:oauth:grant-type:device_code'],
    response_types: [],
    redirect_uris: [],
    token_endpoint_auth_method: 'client_secret_basic',
  }],
  features: { deviceFlow: { enabled: true }, devInteractions: { enabled: false } },
  claims: { openid: ['sub'], profile: ['preferred_username', 'name', 'groups'], email: ['email'] },
  // The groups stand in the ID token itself, as most providers put them there.
  conformIdTokenClaims: false,
  findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub, ...people[sub] }) }),
});

async function answer(url) {
  const typed = url.searchParams.get('user_code').replace(/[^A-Z0-9]/g, '');
  const code = await provider.DeviceCode.findByUserCode(typed, { ignoreExpiration: true });
  const who = url.searchParams.get('who');
  if (who) {
    const grant = new provider.Grant({ clientId: 'fracas', accountId: who });
    grant.addOIDCScope(scope);
    Object.assign(code, {
      accountId: who, grantId: await grant.save(), authTime: Math.floor(Date.now() / 1000), scope, claims: {},
      client: await provider.Client.find('fracas'),
    });
  } else {
    Object.assign(code, { error: 'access_denied', errorDescription: 'the person said no' });
  }
  await code.save();
}

const served = provider.callback();
http.createServer(async (request, response) => {
  const url = new URL(request.url, issuer);
  if (url.pathname !== '/answer') return served(request, response);
  await answer(url);
  response.end('answered\n');
}).listen(port, '127.0.0.1', () => console.log('{"ready":true}'));
