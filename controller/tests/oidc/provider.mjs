// An identity provider on loopback, with the pages that it has for development: any password is right.
// The groups of a user are what stands behind the name: `ann.admins` is in `admins`, `bob.a.b` in `a` and `b`.
//
// Usage: provider.mjs CLIENT SECRET REDIRECT [in-token]: with the last word all claims are in the ID token.
// Prints its issuer, and serves until its input ends.
import { createServer } from "node:http";

import Provider from "oidc-provider";

const [client, secret, redirect, where] = process.argv.slice(2);
const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: client,
        client_secret: secret,
        redirect_uris: [redirect],
        response_types: ["code"],
        grant_types: ["authorization_code"],
      },
    ],
    pkce: { required: () => true },
    claims: { openid: ["sub"], profile: ["preferred_username", "groups"] },
    conformIdTokenClaims: where !== "in-token",
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => {
        const [name, ...groups] = id.split(".");
        return { sub: id, preferred_username: name, groups };
      },
    }),
    cookies: { keys: ["only for tests"] },
  });
  server.on("request", provider.callback());
  console.log(issuer);
});
process.stdin.on("end", () => process.exit(0)).resume();
