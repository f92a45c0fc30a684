//! Login by an identity provider: OpenID Connect, the code flow with PKCE.
//!
//! Nothing is kept between the two halves of a login: what the second one has to know is in a cookie, sealed with a key that
//! all controllers make of the client's secret. So any of them can end what another one began.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreErrorResponseType, CoreGenderClaim, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreProviderMetadata,
    CoreResponseType, CoreRevocableToken, CoreRevocationErrorResponse,
    CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AccessTokenHash, AdditionalClaims, AuthenticationFlow, AuthorizationCode, Client, ClientId,
    ClientSecret, CsrfToken, EmptyExtraTokenFields, EndpointMaybeSet, EndpointNotSet, EndpointSet,
    IdTokenFields, IssuerUrl, Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier,
    RedirectUrl, Scope, StandardErrorResponse, StandardTokenResponse, TokenResponse as _,
    UserInfoClaims,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::authority::seal::{KeyFile, Sealed, open, seal};
use super::external::{External, Subject};
use super::secret::same;
use super::{AuthError, Role, Secret};

/// The provider's answers come within this time.
const WITHIN: Duration = Duration::from_secs(10);
/// What the provider says of itself and its keys is asked again after this time.
const FRESH: Duration = Duration::from_secs(300);
/// A login is ended within this time.
pub const LOGIN: SignedDuration = SignedDuration::from_mins(10);
/// What is sealed, by name.
const SEALED: &str = "login";

/// How to reach the provider, and what it decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What people see on the button.
    pub name: String,
    /// The provider, as it writes itself.
    pub issuer: String,
    /// What it knows us by.
    pub client_id: String,
    /// By what it knows that it is us.
    pub client_secret: Secret,
    /// Where it sends browsers back to.
    pub redirect_url: String,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// The claim with the name of the user.
    pub user_claim: String,
    /// The claim with the groups of the user: a list of texts, or one.
    pub role_claim: String,
    /// The role of each group. The highest one counts.
    pub roles: BTreeMap<String, Role>,
    /// Authorities beside those of the public web, PEM.
    pub ca: Option<Vec<u8>>,
}

/// The client of a provider. A copy is the same one.
#[derive(Clone)]
pub struct Oidc(Arc<Inner>);

struct Inner {
    settings: Settings,
    issuer: IssuerUrl,
    redirect: RedirectUrl,
    http: reqwest::Client,
    key: KeyFile,
    provider: Mutex<Option<(Instant, CoreProviderMetadata)>>,
}

/// The first half of a login.
#[derive(Debug)]
pub struct Begun {
    /// Where the browser goes.
    pub location: String,
    /// What it keeps until it comes back.
    pub cookie: Secret,
}

/// What comes back with the browser.
#[derive(Debug)]
pub struct Back<'a> {
    /// What it kept.
    pub cookie: &'a str,
    /// What the provider was given.
    pub state: &'a str,
    /// For a token.
    pub code: &'a str,
}

/// What the cookie says.
#[derive(Serialize, Deserialize)]
struct Pending {
    state: String,
    nonce: String,
    verifier: String,
    return_to: String,
    until: Timestamp,
}

/// All claims that the standard has no field for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Claims {
    #[serde(flatten)]
    all: Map<String, Value>,
}

impl AdditionalClaims for Claims {}

type IdFields = IdTokenFields<
    Claims,
    EmptyExtraTokenFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;

type ProviderClient = Client<
    Claims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    StandardTokenResponse<IdFields, CoreTokenType>,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

impl Oidc {
    /// A client; the provider is asked at the first login.
    ///
    /// # Errors
    /// One line that names what is wrong.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let issuer = IssuerUrl::new(settings.issuer.clone()).map_err(|e| format!("issuer: {e}"))?;
        let redirect = RedirectUrl::new(settings.redirect_url.clone());
        let redirect = redirect.map_err(|e| format!("redirect_url: {e}"))?;
        let mut http = reqwest::Client::builder()
            .timeout(WITHIN)
            // Where the provider says, and nowhere else.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some(pem) = &settings.ca {
            let roots = reqwest::Certificate::from_pem_bundle(pem);
            for root in roots.map_err(|e| format!("ca: {e}"))? {
                http = http.add_root_certificate(root);
            }
        }
        let mut key = Sha256::new_with_prefix(b"xdpgate login\0");
        key.update(settings.client_secret.reveal());
        let key = KeyFile::new(&key.finalize()).ok_or("client_secret_file: no key")?;
        Ok(Self(Arc::new(Inner {
            http: http.build().map_err(|e| e.to_string())?,
            settings,
            issuer,
            redirect,
            key,
            provider: Mutex::default(),
        })))
    }

    /// What people see on the button.
    pub fn name(&self) -> &str {
        &self.0.settings.name
    }

    /// Begins a login. `return_to` is where in the interface it ends.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`]: the provider does not answer.
    pub async fn begin(&self, return_to: &str, now: Timestamp) -> Result<Begun, AuthError> {
        let client = self.client().await?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
        let scopes = self.0.settings.scopes.iter().cloned().map(Scope::new);
        let (location, state, nonce) = client
            .authorize_url(flow, CsrfToken::new_random, Nonce::new_random)
            .add_scopes(scopes)
            .set_pkce_challenge(challenge)
            .url();
        let pending = Pending {
            state: state.secret().clone(),
            nonce: nonce.secret().clone(),
            verifier: verifier.secret().clone(),
            return_to: return_to.to_owned(),
            until: now + LOGIN,
        };
        let text = serde_json::to_vec(&pending).unwrap_or_default();
        let Sealed::Sealed(cookie) = seal(Some(&self.0.key), SEALED, &text)? else {
            return Err(AuthError::Damaged("the login is not sealed".to_owned()));
        };
        Ok(Begun {
            location: location.to_string(),
            cookie: Secret::new(cookie),
        })
    }

    /// Ends a login: who it is, and where in the interface he wanted to.
    ///
    /// # Errors
    /// [`AuthError::Credentials`]: it is not one that was begun by this browser, or the provider does not confirm it.
    /// [`AuthError::Unavailable`]: it does not answer.
    pub async fn end(
        &self,
        back: Back<'_>,
        now: Timestamp,
    ) -> Result<(External, String), AuthError> {
        const FOREIGN: AuthError =
            AuthError::Credentials("this browser has begun no such login: begin again");
        let sealed = Sealed::Sealed(back.cookie.to_owned());
        let text = open(Some(&self.0.key), SEALED, &sealed).map_err(|_| FOREIGN)?;
        let pending: Pending = serde_json::from_slice(&text).map_err(|_| FOREIGN)?;
        if !same(&pending.state, back.state) || now >= pending.until {
            return Err(FOREIGN);
        }
        let client = self.client().await?;
        let code = AuthorizationCode::new(back.code.to_owned());
        let tokens = client
            .exchange_code(code)
            .map_err(|e| unavailable(&e))?
            .set_pkce_verifier(PkceCodeVerifier::new(pending.verifier))
            .request_async(&self.0.http)
            .await
            .map_err(|error| refused("the code", &error))?;
        let token = tokens.id_token();
        let token = token.ok_or_else(|| refused("the answer", &"it has no ID token"))?;
        let verifier = client.id_token_verifier();
        let claims = token
            .claims(&verifier, &Nonce::new(pending.nonce))
            .map_err(|error| refused("the ID token", &error))?;
        if let Some(expected) = claims.access_token_hash() {
            let alg = token
                .signing_alg()
                .map_err(|e| refused("the ID token", &e))?;
            let key = token.signing_key(&verifier);
            let key = key.map_err(|e| refused("the ID token", &e))?;
            let hash = AccessTokenHash::from_token(tokens.access_token(), alg, key);
            if hash.map_err(|e| refused("the access token", &e))? != *expected {
                return Err(refused("the access token", &"it is of another ID token"));
            }
        }
        let mut said = claims.additional_claims().all.clone();
        said.extend(standard(serde_json::to_value(claims)));
        let settings = &self.0.settings;
        let lacks = |said: &Map<_, _>| {
            !said.contains_key(&settings.role_claim) || !said.contains_key(&settings.user_claim)
        };
        if lacks(&said) && client.user_info_url().is_some() {
            let subject = Some(claims.subject().clone());
            let request = client.user_info(tokens.access_token().clone(), subject);
            let info: UserInfoClaims<Claims, CoreGenderClaim> = request
                .map_err(|e| unavailable(&e))?
                .request_async(&self.0.http)
                .await
                .map_err(|error| refused("the claims", &error))?;
            let mut more = info.additional_claims().all.clone();
            more.extend(standard(serde_json::to_value(&info)));
            // What is signed counts first.
            more.extend(said);
            said = more;
        }
        let subject = Subject {
            issuer: claims.issuer().to_string(),
            subject: claims.subject().to_string(),
        };
        let name = said.get(&settings.user_claim).and_then(Value::as_str);
        let external = External {
            name: name.unwrap_or_default().to_owned(),
            role: settings.role_of(&said),
            subject,
        };
        Ok((external, pending.return_to))
    }

    async fn client(&self) -> Result<ProviderClient, AuthError> {
        let inner = &self.0;
        let mut provider = inner.provider.lock().await;
        let metadata = match &*provider {
            Some((since, metadata)) if since.elapsed() < FRESH => metadata.clone(),
            _ => {
                let found = CoreProviderMetadata::discover_async(inner.issuer.clone(), &inner.http);
                let found = found.await.map_err(|error| unavailable(&error))?;
                *provider = Some((Instant::now(), found.clone()));
                found
            }
        };
        drop(provider);
        let settings = &inner.settings;
        let id = ClientId::new(settings.client_id.clone());
        let secret = ClientSecret::new(settings.client_secret.reveal().to_owned());
        let client = Client::from_provider_metadata(metadata, id, Some(secret));
        Ok(client.set_redirect_uri(inner.redirect.clone()))
    }
}

impl Settings {
    fn role_of(&self, claims: &Map<String, Value>) -> Option<Role> {
        let groups = match claims.get(&self.role_claim)? {
            Value::Array(groups) => groups.iter().filter_map(Value::as_str).collect(),
            Value::String(group) => vec![group.as_str()],
            _ => Vec::new(),
        };
        let roles = groups.into_iter().filter_map(|group| self.roles.get(group));
        roles.max().copied()
    }
}

impl fmt::Debug for Oidc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Oidc").field(&self.0.settings).finish()
    }
}

/// The claims that the standard names, as any other.
fn standard(claims: Result<Value, serde_json::Error>) -> Map<String, Value> {
    match claims {
        Ok(Value::Object(claims)) => claims,
        _ => Map::new(),
    }
}

fn unavailable(error: &dyn std::error::Error) -> AuthError {
    log::warn!("the identity provider: {}", whole(error));
    AuthError::Unavailable("the identity provider does not answer as it should: try again".into())
}

fn refused(what: &str, error: &impl fmt::Display) -> AuthError {
    log::warn!("a login by the identity provider: {what}: {error}");
    AuthError::Credentials("the identity provider does not confirm the login: begin again")
}

/// With what is behind it.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}
