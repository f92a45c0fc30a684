//! Login by an identity provider: the real one of controller/tests/oidc, and a browser that follows where it is sent.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use reqwest::{Method, Url};
use serde_json::{Value, json};
use xdpgate_controller::auth::oidc::{Oidc, Settings};
use xdpgate_controller::auth::{Role, Secret};

use crate::server::{Api, Session};

struct Provider {
    child: Child,
    /// What it says has to go somewhere.
    _said: BufReader<ChildStdout>,
    issuer: String,
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A provider that sends browsers back to `redirect`. `None`, said aloud, where it cannot be had; under CI it can.
fn provider(redirect: &str, more: &[&str]) -> Option<Provider> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let made = Command::new(root.join("scripts/oidc-provider"))
        .output()
        .unwrap();
    if !made.status.success() {
        let error = String::from_utf8_lossy(&made.stderr);
        assert!(std::env::var_os("CI").is_none(), "{error}");
        println!("skipped: {error}");
        return None;
    }
    let mut child = Command::new("node")
        .arg(String::from_utf8(made.stdout).unwrap().trim())
        .args(["xdpgate", "the secret", redirect])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut issuer = String::new();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    said.read_line(&mut issuer).unwrap();
    let issuer = issuer.trim().to_owned();
    assert!(issuer.starts_with("http"), "{issuer:?}");
    Some(Provider {
        child,
        _said: said,
        issuer,
    })
}

/// Follows redirects by hand, and keeps cookies by host.
struct Browser {
    client: reqwest::Client,
    cookies: BTreeMap<(String, String), String>,
}

fn place(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap(), url.port().unwrap())
}

/// What came in the end.
struct Page {
    url: Url,
    status: u16,
    headers: reqwest::header::HeaderMap,
    text: String,
}

impl Browser {
    fn new() -> Self {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        Self {
            client: client.build().unwrap(),
            cookies: BTreeMap::new(),
        }
    }

    async fn call(&mut self, url: &Url, form: Option<&[(&str, &str)]>) -> Page {
        let place = place(url);
        let own = self.cookies.iter().filter(|((host, _), _)| *host == place);
        let cookies: Vec<String> = own
            .map(|((_, name), value)| format!("{name}={value}"))
            .collect();
        let request = match form {
            None => self.client.get(url.clone()),
            Some(form) => {
                let mut text = Url::parse("x:").unwrap();
                text.query_pairs_mut().extend_pairs(form);
                let request = self.client.post(url.clone());
                let request = request.header("content-type", "application/x-www-form-urlencoded");
                request.body(text.query().unwrap().to_owned())
            }
        };
        // As browsers say it when another site sends them.
        let request = request.header("sec-fetch-site", "cross-site");
        let answer = request
            .header("cookie", cookies.join("; "))
            .send()
            .await
            .unwrap();
        self.take(url.clone(), answer).await
    }

    async fn take(&mut self, url: Url, answer: reqwest::Response) -> Page {
        let place = place(&url);
        for cookie in answer.headers().get_all("set-cookie") {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies
                .insert((place.clone(), name.to_owned()), value.to_owned());
        }
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Page {
            url,
            status,
            headers,
            text: answer.text().await.unwrap(),
        }
    }

    /// Goes where it is sent, but not to a page of the host `not_of` that is a path `stop`.
    async fn follow(&mut self, mut page: Page, stop: &str) -> Page {
        for _ in 0..12 {
            let Some(to) = page.headers.get("location") else {
                return page;
            };
            let to = page.url.join(to.to_str().unwrap()).unwrap();
            if to.path() == stop {
                page.url = to;
                return page;
            }
            page = self.call(&to, None).await;
        }
        panic!("sent in circles: {}", page.url);
    }

    /// Begins a login in the interface.
    async fn start(&mut self, api: &Api, return_to: &str) -> Page {
        let start = format!("/login/oidc?return_to={return_to}");
        let request = api.request(Method::GET, &start).build().unwrap();
        let url = request.url().clone();
        let answer = self.client.execute(request).await.unwrap();
        self.take(url, answer).await
    }

    /// Logs in at the pages of the provider, up to where it sends the browser back.
    async fn log_in(&mut self, api: &Api, user: &str, return_to: &str) -> Page {
        let page = self.start(api, return_to).await;
        assert_eq!(page.status, 303, "{}", page.text);
        let to = page.headers["location"].to_str().unwrap();
        assert!(
            to.contains("code_challenge_method=S256") && to.contains("nonce="),
            "{to}"
        );
        let page = self.follow(page, "").await;
        assert_eq!(page.status, 200, "{}", page.text);
        let form = [("prompt", "login"), ("login", user), ("password", "x")];
        let page = self.call(&page.url.clone(), Some(&form)).await;
        let page = self.follow(page, "").await;
        assert_eq!(page.status, 200, "{}", page.text);
        let page = self
            .call(&page.url.clone(), Some(&[("prompt", "consent")]))
            .await;
        self.follow(page, "/api/v1/login/oidc/callback").await
    }
}

fn settings(api: &Api, issuer: &str) -> Settings {
    let roles = [
        ("viewers", Role::Viewer),
        ("ops", Role::Operator),
        ("admins", Role::Admin),
    ];
    Settings {
        name: "the provider".to_owned(),
        issuer: issuer.to_owned(),
        client_id: "xdpgate".to_owned(),
        client_secret: Secret::from("the secret"),
        redirect_url: redirect(api),
        scopes: vec!["profile".to_owned()],
        user_claim: "preferred_username".to_owned(),
        role_claim: "groups".to_owned(),
        roles: roles.map(|(group, role)| (group.to_owned(), role)).into(),
        ca: None,
    }
}

fn redirect(api: &Api) -> String {
    format!("http://{}/api/v1/login/oidc/callback", api.address)
}

async fn with_provider(more: &[&str]) -> Option<(Api, Provider)> {
    let api = Api::start().await;
    let provider = provider(&redirect(&api), more)?;
    let oidc = Oidc::new(settings(&api, &provider.issuer)).unwrap();
    let _ = api.app.clone().with_oidc(oidc);
    Some((api, provider))
}

fn session(browser: &Browser) -> Option<Session> {
    let mut cookies = browser.cookies.iter();
    let cookie = cookies.find(|((_, name), value)| name == "__Host-xdpgate" && !value.is_empty());
    cookie.map(|((_, name), value)| Session {
        cookie: format!("{name}={value}"),
        csrf: String::new(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn r90_a_user_of_the_provider_has_a_session_and_the_role_of_his_groups() {
    for more in [&[][..], &["in-token"]] {
        let Some((api, _provider)) = with_provider(more).await else {
            return;
        };
        let methods = api
            .send(api.request(Method::GET, "/login/methods"))
            .await
            .is(200)
            .json();
        let expected = json!({ "name": "the provider", "start": "/api/v1/login/oidc" });
        assert_eq!(methods, json!({ "password": true, "oidc": expected }));

        let mut browser = Browser::new();
        let page = browser
            .log_in(&api, "Ann.ops.viewers", "/nodes%3Fq%3Da")
            .await;
        let page = browser.call(&page.url, None).await;
        assert_eq!(page.status, 303, "{}", page.text);
        assert_eq!(page.headers["location"], "/nodes?q=a");
        let mut ann = session(&browser).expect("a session");
        let me = api
            .within(&ann, Method::GET, "/session", Value::Null)
            .await
            .is(200)
            .json();
        assert_eq!(
            (&me["user"], &me["role"]),
            (&json!("ann"), &json!("operator")),
            "{me}"
        );
        // It is as any other: with the token against forgery, and to be ended.
        let set = json!({ "name": "s" });
        api.within(&ann, Method::POST, "/sets", set.clone())
            .await
            .refused(403, "csrf");
        ann.csrf = me["csrf_token"].as_str().unwrap().to_owned();
        api.within(&ann, Method::POST, "/sets", set).await.is(201);

        let user = api.get("/users/ann").await.is(200).json();
        assert_eq!(user["oidc"]["subject"], "Ann.ops.viewers", "{user}");
        let actions = api.actions().await;
        for action in ["user.create", "session.login"] {
            assert!(actions.iter().any(|a| a == action), "{actions:?}");
        }
        // No password lets him in, nor can one be made; his role is not ours to say.
        for password in ["", "x", "the secret"] {
            api.login("ann", password).await.is(401);
        }
        api.post("/users/ann/reset-password", Value::Null)
            .await
            .is(403);
        api.patch("/users/ann", json!({ "role": "admin" }))
            .await
            .refused(422, "invalid");
        api.patch("/users/ann", json!({ "disabled": true }))
            .await
            .is(200);
        api.within(&ann, Method::GET, "/session", Value::Null)
            .await
            .is(401);
        let page = Browser::new().log_in(&api, "Ann.ops.viewers", "/").await;
        // Another browser has not begun it.
        let stolen = Browser::new().call(&page.url, None).await;
        assert_eq!(stolen.status, 401, "{}", stolen.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r90_who_has_no_group_or_the_name_of_another_is_refused_and_written_down() {
    let Some((api, _provider)) = with_provider(&[]).await else {
        return;
    };
    for user in [
        "eve",
        "eve.others",
        "root.admins",
        "vera.viewers",
        "..admins",
    ] {
        let mut browser = Browser::new();
        let page = browser.log_in(&api, user, "/").await;
        let page = browser.call(&page.url, None).await;
        assert_eq!(page.status, 403, "{user}: {}", page.text);
        assert!(session(&browser).is_none(), "{user}");
    }
    api.get("/users/eve").await.is(404);
    let refused = api
        .get("/audit?action=session.refused")
        .await
        .is(200)
        .json();
    assert_eq!(refused["items"].as_array().unwrap().len(), 5, "{refused}");
    assert_eq!(
        refused["items"][1]["detail"]["subject"], "vera.viewers",
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn r90_a_login_is_of_the_browser_and_the_state_that_began_it_and_ends_once() {
    let Some((api, provider)) = with_provider(&[]).await else {
        return;
    };
    let mut browser = Browser::new();
    let page = browser.log_in(&api, "ann.ops", "/").await;
    let callback = page.url;
    let changed = |name: &str, value: &str| {
        let mut url = callback.clone();
        let pairs = callback
            .query_pairs()
            .filter(|(key, _)| key != name)
            .collect::<Vec<_>>();
        url.query_pairs_mut()
            .clear()
            .extend_pairs(pairs)
            .append_pair(name, value);
        url
    };
    for url in [
        changed("state", "x"),
        changed("state", ""),
        changed("error", "<script>"),
    ] {
        let page = browser.call(&url, None).await;
        assert_eq!(page.status, 401, "{}", page.text);
        assert!(!page.text.contains("<script>"), "{}", page.text);
    }
    // A cookie that is not sealed by us.
    let mut forged = Browser::new();
    let place = api.address.to_string();
    let name = || (place.clone(), "__Host-xdpgate-login".to_owned());
    forged.cookies.insert(name(), "AAAA".repeat(40));
    assert_eq!(forged.call(&callback, None).await.status, 401);
    // A code that the provider has not given.
    let page = browser.call(&changed("code", "x"), None).await;
    assert_eq!(page.status, 401, "{}", page.text);

    let cookie = browser.cookies[&name()].clone();
    let page = browser.call(&callback, None).await;
    assert_eq!(page.status, 303, "{}", page.text);
    assert!(session(&browser).is_some());
    assert_eq!(
        browser.cookies[&name()],
        "",
        "the cookie of the login is taken back"
    );
    // Once more, with all that was there.
    browser.cookies.insert(name(), cookie);
    assert_eq!(browser.call(&callback, None).await.status, 401);

    for path in [
        "//evil.example",
        "/%5Cevil.example",
        "https:%2F%2Fevil.example",
    ] {
        let start = format!("/login/oidc?return_to={path}");
        api.send(api.request(Method::GET, &start))
            .await
            .refused(422, "invalid");
    }
    // The provider is gone: what it said of itself is still known, and its word is not.
    drop(provider);
    let mut late = Browser::new();
    assert_eq!(late.start(&api, "/").await.status, 303);
    // Another site begins no login, though it may send a browser back from one.
    let start = Url::parse(&format!("http://{}/api/v1/login/oidc", api.address)).unwrap();
    let page = late.call(&start, None).await;
    assert_eq!(page.status, 403, "{}", page.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_provider_there_is_a_password() {
    let api = Api::start().await;
    let methods = api
        .send(api.request(Method::GET, "/login/methods"))
        .await
        .is(200)
        .json();
    assert_eq!(methods, json!({ "password": true }));
    api.send(api.request(Method::GET, "/login/oidc"))
        .await
        .refused(404, "not_found");
    // One that does not answer.
    let oidc = Oidc::new(settings(&api, "http://127.0.0.1:9")).unwrap();
    let _ = api.app.clone().with_oidc(oidc);
    api.send(api.request(Method::GET, "/login/oidc"))
        .await
        .refused(503, "unavailable");
}
