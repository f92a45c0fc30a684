//! Who may: logins, sessions, tokens, roles.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use xdpgate_controller::http::{Access, TABLE, openapi};

use crate::server::{Api, PASSWORD, Session, logged};

#[tokio::test(flavor = "multi_thread")]
async fn r90_login_session_logout_and_tokens() {
    let api = Api::start().await;
    api.send(api.request(Method::GET, "/session"))
        .await
        .refused(401, "unauthenticated");
    api.login("vera", "a wrong password")
        .await
        .refused(401, "unauthenticated");
    api.login("nobody", PASSWORD)
        .await
        .refused(401, "unauthenticated");

    let answer = api.login("vera", PASSWORD).await.is(201);
    let cookie = answer.header("set-cookie");
    for part in [
        "__Host-xdpgate=",
        "; Secure",
        "; HttpOnly",
        "; SameSite=Strict",
        "; Path=/",
    ] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
    let session = Session::of(&answer);
    let me = api
        .within(&session, Method::GET, "/session", Value::Null)
        .await
        .is(200)
        .json();
    assert_eq!(
        (&me["user"], &me["role"]),
        (&json!("vera"), &json!("viewer"))
    );

    let more = json!({ "name": "ci", "role": "admin" });
    api.within(&session, Method::POST, "/tokens", more)
        .await
        .refused(403, "forbidden");
    let body = json!({ "name": "ci", "role": "viewer" });
    let made = api
        .within(&session, Method::POST, "/tokens", body)
        .await
        .is(201)
        .json();
    let token = made["secret"].as_str().unwrap();
    assert!(token.starts_with("xgt_"));
    api.by(token, Method::GET, "/policies", Value::Null)
        .await
        .is(200);
    let listed = api
        .within(&session, Method::GET, "/tokens", Value::Null)
        .await
        .is(200);
    assert!(!listed.text.contains(token) && listed.text.contains(made["id"].as_str().unwrap()));
    let path = format!("/tokens/{}", made["id"].as_str().unwrap());
    let oscar = api.session("oscar").await;
    api.within(&oscar, Method::DELETE, &path, Value::Null)
        .await
        .refused(404, "not_found");
    api.within(&session, Method::DELETE, &path, Value::Null)
        .await
        .is(204);
    api.by(token, Method::GET, "/policies", Value::Null)
        .await
        .refused(401, "unauthenticated");

    api.within(&session, Method::DELETE, "/session", Value::Null)
        .await
        .is(204);
    api.within(&session, Method::GET, "/session", Value::Null)
        .await
        .refused(401, "unauthenticated");

    let actions = api.actions().await;
    for action in [
        "session.login",
        "session.logout",
        "session.refused",
        "token.create",
        "token.remove",
    ] {
        assert!(
            actions.iter().any(|a| a == action),
            "{action} in {actions:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r90_logins_in_vain_are_throttled() {
    let api = Api::start().await;
    let mut waits = 0;
    for _ in 0..8 {
        let answer = api.login("vera", "a wrong password").await;
        if answer.status == 429 {
            assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
            waits += 1;
        }
    }
    assert!(waits >= 2, "{waits}");
    // The right password waits as well, and so does every other account from here.
    api.login("vera", PASSWORD)
        .await
        .refused(429, "too_many_requests");
    api.login("oscar", PASSWORD)
        .await
        .refused(429, "too_many_requests");
    // Who is in stays in.
    api.get("/session").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn r90_users_roles_and_an_audit_entry_per_change() {
    let api = Api::start().await;
    let body = json!({ "name": "ann", "role": "operator" });
    let made = api.post("/users", body.clone()).await.is(201);
    let one_time = made.json()["one_time_password"]
        .as_str()
        .unwrap()
        .to_owned();
    api.post("/users", body)
        .await
        .refused(409, "already_exists");
    let problem = api
        .post("/users", json!({ "name": "A b", "role": "viewer" }))
        .await
        .refused(422, "invalid");
    assert_eq!(problem["field"], "name");

    // The one-time password opens one door only.
    let session = Session::of(&api.login("ann", &one_time).await.is(201));
    let policies = api
        .within(&session, Method::GET, "/policies", Value::Null)
        .await;
    let problem = policies.refused(403, "password_change_required");
    assert!(
        problem["mend"]
            .as_str()
            .unwrap()
            .contains("/session/password")
    );
    let own = "a password of my own";
    let change =
        |current: &str, new: &str| json!({ "current_password": current, "new_password": new });
    let short = api
        .within(
            &session,
            Method::PUT,
            "/session/password",
            change(&one_time, "short"),
        )
        .await;
    assert_eq!(short.refused(422, "invalid")["field"], "new_password");
    let wrong = api
        .within(
            &session,
            Method::PUT,
            "/session/password",
            change("wrong", own),
        )
        .await;
    assert_eq!(wrong.refused(422, "invalid")["field"], "current_password");
    api.within(
        &session,
        Method::PUT,
        "/session/password",
        change(&one_time, own),
    )
    .await
    .is(204);
    api.within(&session, Method::GET, "/session", Value::Null)
        .await
        .refused(401, "unauthenticated");
    let session = Session::of(&api.login("ann", own).await.is(201));
    api.within(&session, Method::GET, "/policies", Value::Null)
        .await
        .is(200);
    api.within(&session, Method::GET, "/users", Value::Null)
        .await
        .refused(403, "forbidden");

    // A change of role ends the session; the version guards it.
    let user = api.get("/users/ann").await.is(200);
    let patch = |tag: &str| {
        let request = api
            .request(Method::PATCH, "/users/ann")
            .bearer_auth(&api.admin);
        request
            .header("if-match", tag)
            .json(&json!({ "role": "viewer" }))
    };
    api.send(patch("\"1\""))
        .await
        .refused(412, "version_conflict");
    api.send(patch(user.header("etag"))).await.is(200);
    api.within(&session, Method::GET, "/session", Value::Null)
        .await
        .refused(401, "unauthenticated");
    api.patch("/users/root", json!({ "role": "viewer" }))
        .await
        .refused(409, "conflict");
    api.delete("/users/ann").await.is(204);
    api.login("ann", own).await.refused(401, "unauthenticated");

    let actions = api.actions().await;
    for action in ["user.create", "user.password", "user.update", "user.remove"] {
        assert!(
            actions.iter().any(|a| a == action),
            "{action} in {actions:?}"
        );
    }
    let page = api
        .get("/audit?action=user.&object=user/ann&actor=root%2B")
        .await
        .is(200)
        .json();
    assert_eq!(page["items"], json!([]), "an actor is named as a whole");
    let page = api
        .get("/audit?action=user.&object=user/ann")
        .await
        .is(200)
        .json();
    let entry = &page["items"][0];
    assert_eq!(
        (&entry["action"], &entry["origin"]),
        (&json!("user.remove"), &json!("127.0.0.1"))
    );
    assert!(
        entry["actor"].as_str().unwrap().starts_with("root+"),
        "{entry}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_a_session_that_change_something_carry_its_csrf_token() {
    let api = Api::start().await;
    let session = api.session("oscar").await;
    let other = api.session("oscar").await;
    let create = |csrf: Option<&str>, site: Option<&str>, name: &str| {
        let request = api
            .request(Method::POST, "/policies")
            .header("cookie", &session.cookie);
        let mut request = request.json(&json!({ "name": name }));
        if let Some(csrf) = csrf {
            request = request.header("x-csrf-token", csrf);
        }
        if let Some(site) = site {
            request = request.header("sec-fetch-site", site);
        }
        request
    };
    api.send(create(None, None, "a")).await.refused(403, "csrf");
    api.send(create(Some(""), None, "a"))
        .await
        .refused(403, "csrf");
    api.send(create(Some(&other.csrf), None, "a"))
        .await
        .refused(403, "csrf");
    api.send(create(Some(&session.csrf), Some("cross-site"), "a"))
        .await
        .refused(403, "csrf");
    api.send(create(Some(&session.csrf), Some("same-origin"), "a"))
        .await
        .is(201);
    // What a form of another site can send is not taken at all.
    let form = api
        .request(Method::POST, "/session")
        .body(format!("user=vera&password={PASSWORD}"));
    let form = form.header("content-type", "text/plain");
    api.send(form).await.refused(415, "media_type");
    let login = api
        .request(Method::POST, "/session")
        .header("sec-fetch-site", "cross-site");
    let login = login.json(&json!({ "user": "vera", "password": PASSWORD }));
    api.send(login).await.refused(403, "csrf");
}

/// The operations of the OpenAPI document.
fn operations() -> BTreeSet<(String, String)> {
    let document: Value = serde_json::from_str(&openapi().to_json().unwrap()).unwrap();
    let mut found = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            if ["get", "put", "post", "patch", "delete", "head", "options"].contains(&&**method) {
                found.insert((method.to_uppercase(), path.clone()));
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_in_the_table_and_refuses_the_roles_below() {
    let documented = operations();
    let table: BTreeSet<_> = TABLE
        .iter()
        .map(|(m, p, _)| (m.to_string(), p.to_string()))
        .collect();
    assert_eq!(documented, table);
    assert_eq!(table.len(), TABLE.len(), "each once");

    let api = Api::start().await;
    let open = [
        "/api/v1/openapi.json",
        "/api/v1/health",
        "/api/v1/ready",
        "/api/v1/session",
        "/api/v1/login/methods",
        "/api/v1/login/oidc",
        "/api/v1/login/oidc/callback",
    ];
    for (method, path, access) in TABLE {
        let filled = path.replace("{revision}", "1");
        let filled = filled
            .split('/')
            .map(|part| if part.starts_with('{') { "x" } else { part });
        let filled = filled.collect::<Vec<_>>().join("/");
        let filled = filled.strip_prefix("/api/v1").unwrap();
        let method: Method = method.parse().unwrap();
        let call = async |token: Option<&str>| {
            let mut request = api.request(method.clone(), filled);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            // Streams are looked at by their head alone.
            request.send().await.unwrap().status().as_u16()
        };
        let without = call(None).await;
        if matches!(access, Access::Open | Access::Elsewhere) {
            assert!(open.contains(path), "{path} is open");
            assert_ne!(without, 401, "{method} {path}");
            continue;
        }
        assert_eq!(without, 401, "{method} {path} without a token");
        assert_eq!(
            call(Some("xgt_aaaaaaaaaaaaaaaa_x")).await,
            401,
            "{method} {path} with a wrong one"
        );
        let Access::From(role) = access else { continue };
        let rank = |name: &str| {
            ["viewer", "operator", "admin"]
                .iter()
                .position(|n| *n == name)
        };
        let needed = rank(&role.to_string());
        for (name, token) in [("viewer", &api.viewer), ("operator", &api.operator)] {
            if rank(name) < needed {
                assert_eq!(call(Some(token)).await, 403, "{method} {path} by {name}");
            }
        }
    }
    // What is not there is not told apart by who asks, and nothing is outside of the table.
    api.get("/nothing").await.refused(404, "not_found");
    api.by(&api.viewer, Method::PUT, "/users", Value::Null)
        .await
        .refused(405, "method");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_an_answer_twice_or_in_the_log_or_the_audit_entries() {
    let api = Api::start().await;
    let session = api.session("root").await;
    let token = json!({ "name": "ci", "role": "viewer" });
    let token = api
        .within(&session, Method::POST, "/tokens", token)
        .await
        .is(201)
        .json();
    let join = api.post("/join-tokens", json!({})).await.is(201).json();
    let user = api
        .post("/users", json!({ "name": "ann", "role": "viewer" }))
        .await
        .is(201)
        .json();
    let reset = api
        .post("/users/ann/reset-password", Value::Null)
        .await
        .is(200)
        .json();
    let (_, joined) = api.node(json!({ "env": "prod" })).await;
    assert!(!joined.certificate_chain.is_empty());
    api.login("vera", "a wrong password").await.is(401);
    for path in [
        "/users",
        "/users/ann",
        "/tokens",
        "/join-tokens",
        "/authority",
        "/audit",
        "/nodes",
        "/session",
    ] {
        api.get(path).await.is(200);
    }
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let secrets = [
        (text(&token["secret"]), 1),
        (text(&join["secret"]), 1),
        (text(&user["one_time_password"]), 1),
        (text(&reset["one_time_password"]), 1),
        (session.cookie.split_once('=').unwrap().1.to_owned(), 1),
        (PASSWORD.to_owned(), 0),
        ("a wrong password".to_owned(), 0),
        ("$argon2".to_owned(), 0),
        ("PRIVATE KEY".to_owned(), 0),
        (api.admin.clone(), 0),
    ];
    let answers = api.answers.lock().unwrap().clone();
    let logged = logged();
    assert!(
        logged.iter().any(|line| line.contains("login refused")),
        "{logged:?}"
    );
    for (secret, times) in &secrets {
        let found = answers
            .iter()
            .filter(|answer| answer.contains(secret.as_str()))
            .count();
        assert_eq!(found, *times, "{secret} in answers");
        assert!(
            !logged.iter().any(|line| line.contains(secret.as_str())),
            "{secret} in the log"
        );
    }
    // Digests and hashes are not answered either.
    let told = answers.concat();
    assert!(
        !told.contains("digest") && !told.contains("\"password\""),
        "{told}"
    );
}
