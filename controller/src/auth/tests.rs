//! Users, sessions, tokens and certificates over a real store, at times of the test's own choice.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, KeyPair};

use super::authority::{Authority, ServerCertificate, identify, new_node_id, server_config};
use super::*;
use crate::store::sqlite::Sqlite;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7));
const GOOD: &str = "correct horse battery";

struct Fixture {
    _folder: tempfile::TempDir,
    store: Arc<dyn Store>,
    auth: Auth,
    now: Timestamp,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(folder.path().join("c.db")).unwrap());
    let auth = Auth::new(Arc::clone(&store), Options::default());
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    Fixture {
        _folder: folder,
        store,
        auth,
        now,
    }
}

fn admin() -> Actor {
    Actor {
        name: "admin".into(),
        role: Role::Admin,
        origin: "local".into(),
    }
}

impl Fixture {
    async fn user(&self, name: &str, role: Role) {
        let new = NewUser {
            name: name.into(),
            role,
            password: Some(Secret::new(GOOD)),
        };
        self.auth
            .create_user(&admin(), new, self.now)
            .await
            .unwrap();
    }

    async fn login(&self, name: &str) -> Login {
        self.auth
            .login(name, Secret::new(GOOD), HERE, self.now)
            .await
            .unwrap()
    }

    async fn actions(&self) -> Vec<String> {
        let page = self.store.list("audit/", None, 1_000, None).await.unwrap();
        let action = |bytes: &[u8]| {
            let entry: crate::core::audit::Entry = serde_json::from_slice(bytes).unwrap();
            entry.action
        };
        page.records
            .iter()
            .map(|(_, record)| action(&record.value))
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_by_time_logout_password_role_and_removal() {
    let f = fixture();
    for name in ["root", "ann"] {
        f.user(name, Role::Admin).await;
    }
    let later = |seconds| f.now + SignedDuration::from_secs(seconds);
    let alive = async |login: &Login, at| f.auth.session(&login.cookie, at).await.is_ok();

    let login = f.login("ann").await;
    assert!(alive(&login, later(3_599)).await);
    assert!(!alive(&login, later(3_601 + 3_600)).await, "idle");

    let login = f.login("ann").await;
    let actor = login.identity.actor(HERE);
    let Means::Session { digest, .. } = &login.identity.means else {
        panic!()
    };
    f.auth.logout(&actor, digest).await.unwrap();
    assert!(!alive(&login, f.now).await, "logout");

    let (login, other) = (f.login("ann").await, f.login("ann").await);
    let new = Secret::new("another good password");
    f.auth
        .change_password(&actor, HERE, Secret::new(GOOD), new.clone(), f.now)
        .await
        .unwrap();
    assert!(
        !alive(&login, f.now).await && !alive(&other, f.now).await,
        "password"
    );
    assert!(
        f.auth
            .login("ann", Secret::new(GOOD), HERE, f.now)
            .await
            .is_err()
    );

    let again = async || f.auth.login("ann", new.clone(), HERE, f.now).await.unwrap();
    let login = again().await;
    let patch = UserPatch {
        role: Some(Role::Viewer),
        ..UserPatch::default()
    };
    f.auth
        .update_user(&admin(), "ann", &patch, None)
        .await
        .unwrap();
    assert!(!alive(&login, f.now).await, "role");

    let login = again().await;
    f.auth.end_sessions(&admin(), "ann").await.unwrap();
    assert!(!alive(&login, f.now).await, "ended by an admin");

    let login = again().await;
    f.auth.remove_user(&admin(), "ann", None).await.unwrap();
    assert!(!alive(&login, f.now).await, "removal");

    let actions = f.actions().await;
    for action in [
        "user.create",
        "session.login",
        "session.logout",
        "user.password",
        "session.refused",
        "user.update",
        "user.end_sessions",
        "user.remove",
    ] {
        assert!(
            actions.iter().any(|a| a == action),
            "{action} in {actions:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_used_lives_to_its_absolute_end() {
    let f = fixture();
    f.user("root", Role::Admin).await;
    let login = f.login("root").await;
    let step = SignedDuration::from_mins(50);
    let written = async || {
        let page = f.store.list("session/", None, 10, None).await.unwrap();
        page.records[0].1.revision
    };
    let mut at = f.now;
    let mut alive = 0;
    loop {
        let before = written().await;
        if f.auth.session(&login.cookie, at).await.is_err() {
            break;
        }
        // The use is written in the background; the first one is that of the login.
        while at > f.now && written().await == before {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        alive += 1;
        at += step;
    }
    assert_eq!(alive, 29, "24 hours in steps of 50 minutes");
    assert_eq!(f.auth.sweep(at).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_token_that_has_ended_is_kept_for_a_week_and_deleted_then() {
    let f = fixture();
    f.user("admin", Role::Admin).await;
    let new = |name: &str, expires| NewToken {
        name: name.to_owned(),
        role: Role::Viewer,
        expires,
    };
    let end = f.now + SignedDuration::from_hours(1);
    for (name, expires) in [("ends", Some(end)), ("lasts", None)] {
        let (actor, new) = (admin(), new(name, expires));
        let made = f.auth.create_token(&actor, "admin", new, f.now);
        made.await.unwrap();
    }
    let names = async || {
        let tokens = f.auth.tokens(None).await.unwrap();
        let names = tokens.into_iter().map(|token| token.value.name);
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    let week = SignedDuration::from_hours(24 * 7);
    assert_eq!(f.auth.sweep(end + week).await.unwrap(), 0);
    assert_eq!(names().await, ["ends", "lasts"]);
    let later = end + week + SignedDuration::from_secs(1);
    assert_eq!(f.auth.sweep(later).await.unwrap(), 1);
    assert_eq!(names().await, ["lasts"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_admin_stays_even_when_two_demote_each_other_at_once() {
    let f = fixture();
    f.user("ann", Role::Admin).await;
    let demote = UserPatch {
        role: Some(Role::Viewer),
        ..UserPatch::default()
    };
    let last = f
        .auth
        .update_user(&admin(), "ann", &demote, None)
        .await
        .unwrap_err();
    assert!(last.to_string().contains("last admin"), "{last}");
    assert!(f.auth.remove_user(&admin(), "ann", None).await.is_err());
    f.user("bob", Role::Admin).await;
    let actor = admin();
    let (a, b) = tokio::join!(
        f.auth.update_user(&actor, "ann", &demote, None),
        f.auth.update_user(&actor, "bob", &demote, None),
    );
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_known_expire_and_die_with_their_owner() {
    let f = fixture();
    f.user("root", Role::Admin).await;
    f.user("ann", Role::Operator).await;
    let actor = f.login("ann").await.identity.actor(HERE);
    let expires = Some(f.now + SignedDuration::from_hours(1));
    let new = |role, expires| NewToken {
        name: "ci".into(),
        role,
        expires,
    };
    let more = f
        .auth
        .create_token(&actor, "ann", new(Role::Admin, None), f.now)
        .await;
    assert!(matches!(more, Err(AuthError::Forbidden(_))));
    let (token, secret) = f
        .auth
        .create_token(&actor, "ann", new(Role::Operator, expires), f.now)
        .await
        .unwrap();
    assert!(secret.reveal().starts_with("xgt_"));
    let known = f.auth.token(&secret, HERE, f.now).await.unwrap();
    assert_eq!((known.user.as_str(), known.role), ("ann", Role::Operator));
    for wrong in ["", "xgt_", "xgt_aaaaaaaaaaaaaaaa_x", &secret.reveal()[..40]] {
        assert!(
            f.auth
                .token(&Secret::new(wrong), HERE, f.now)
                .await
                .is_err(),
            "{wrong}"
        );
    }
    let patch = UserPatch {
        role: Some(Role::Viewer),
        ..UserPatch::default()
    };
    f.auth
        .update_user(&admin(), "ann", &patch, None)
        .await
        .unwrap();
    assert_eq!(
        f.auth.token(&secret, HERE, f.now).await.unwrap().role,
        Role::Viewer
    );
    let past = f.now + SignedDuration::from_hours(1);
    assert!(f.auth.token(&secret, HERE, past).await.is_err(), "expired");

    let (_, second) = f
        .auth
        .create_token(&admin(), "ann", new(Role::Viewer, None), f.now)
        .await
        .unwrap();
    f.auth
        .remove_token(&admin(), &token.id, None)
        .await
        .unwrap();
    assert!(f.auth.token(&secret, HERE, f.now).await.is_err(), "revoked");
    f.auth.token(&second, HERE, f.now).await.unwrap();
    f.auth.remove_user(&admin(), "ann", None).await.unwrap();
    assert!(
        f.auth.token(&second, HERE, f.now).await.is_err(),
        "no owner"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_admin_gets_a_password_once_and_has_to_change_it() {
    let f = fixture();
    let first = f.auth.first_admin(None, f.now).await.unwrap();
    let FirstAdmin::OneTime(lost) = first else {
        panic!("{first:?}")
    };
    let FirstAdmin::OneTime(password) = f.auth.first_admin(None, f.now).await.unwrap() else {
        panic!("nobody has used it: another one is made");
    };
    assert!(f.auth.login("admin", lost, HERE, f.now).await.is_err());
    let late = f.now + SignedDuration::from_hours(25);
    assert!(
        f.auth
            .login("admin", password.clone(), HERE, late)
            .await
            .is_err(),
        "expired"
    );
    let login = f
        .auth
        .login("admin", password.clone(), HERE, f.now)
        .await
        .unwrap();
    assert!(matches!(
        login.identity.means,
        Means::Session {
            must_change_password: true,
            ..
        }
    ));
    let actor = login.identity.actor(HERE);
    f.auth
        .change_password(&actor, HERE, password, Secret::new(GOOD), f.now)
        .await
        .unwrap();
    let login = f.login("admin").await;
    assert!(matches!(
        login.identity.means,
        Means::Session {
            must_change_password: false,
            ..
        }
    ));
    assert!(matches!(
        f.auth.first_admin(None, f.now).await.unwrap(),
        FirstAdmin::Exists
    ));

    let given = fixture();
    let short = given
        .auth
        .first_admin(Some(Secret::new("short")), given.now)
        .await;
    assert!(short.is_err());
    let first = given
        .auth
        .first_admin(Some(Secret::new(GOOD)), given.now)
        .await
        .unwrap();
    assert!(matches!(first, FirstAdmin::Given));
    given.login("admin").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_identical_users_at_once_are_one() {
    let f = fixture();
    let new = || NewUser {
        name: "ann".into(),
        role: Role::Viewer,
        password: Some(Secret::new(GOOD)),
    };
    let actor = admin();
    let (a, b) = tokio::join!(
        f.auth.create_user(&actor, new(), f.now),
        f.auth.create_user(&actor, new(), f.now),
    );
    let refused = [a.err(), b.err()];
    let exists = |e: &&Option<AuthError>| matches!(e, Some(AuthError::AlreadyExists(_)));
    assert_eq!(refused.iter().filter(exists).count(), 1, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_has_no_secret_in_it() {
    let f = fixture();
    f.user("root", Role::Admin).await;
    let login = f.login("root").await;
    let new = NewToken {
        name: "ci".into(),
        role: Role::Admin,
        expires: None,
    };
    let (_, token) = f
        .auth
        .create_token(&admin(), "root", new, f.now)
        .await
        .unwrap();
    let Means::Session { csrf, .. } = &login.identity.means else {
        panic!()
    };
    let page = f.store.list("", None, 1_000, None).await.unwrap();
    assert!(page.records.len() > 5);
    for (key, record) in page.records {
        let text = format!(
            "{} {}",
            key.as_str(),
            String::from_utf8_lossy(&record.value)
        );
        for secret in [GOOD, login.cookie.reveal(), token.reveal(), csrf.reveal()] {
            assert!(!text.contains(secret), "{}", key.as_str());
        }
    }
}

fn request() -> (Vec<u8>, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["evil.example".to_owned()]).unwrap();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "n-aaaaaaaaaaaaaaaa");
    let request = params.serialize_request(&key).unwrap();
    (request.der().to_vec(), key)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_signing_request_only_the_key_is_taken() {
    let f = fixture();
    let authority = Authority::open(Arc::clone(&f.store), None, None, f.now)
        .await
        .unwrap();
    let node = new_node_id();
    let (request, _) = request();
    let made = authority.issue_node(&node, &request, f.now).unwrap();
    let (named, serial) = identify(&made.chain[0]).unwrap();
    assert_eq!((&named, &serial), (&node, &made.issued.serial));
    let (_, parsed) = x509_parser::parse_x509_certificate(&made.chain[0]).unwrap();
    assert!(parsed.subject_alternative_name().unwrap().is_none());
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !parsed.is_ca());
    let days = (parsed.validity().not_after.timestamp() - f.now.as_second()) / 86_400;
    assert_eq!(days, 90);

    let mut broken = request;
    let end = broken.len() - 1;
    broken[end] ^= 1;
    for bad in [&broken[..], b"", &[0x30; 9_000]] {
        let error = authority.issue_node(&node, bad, f.now).unwrap_err();
        assert!(error.to_string().starts_with("csr: "), "{error}");
    }
    assert!(
        identify(&authority.certificates()[0]).is_err(),
        "the authority is no node"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_controllers_that_start_at_once_have_one_authority() {
    let f = fixture();
    let open = || Authority::open(Arc::clone(&f.store), None, None, f.now);
    let (a, b) = tokio::join!(open(), open());
    assert_eq!(a.unwrap().fingerprint(), b.unwrap().fingerprint());
    let again = open().await.unwrap();
    let (one, two) = tokio::join!(
        Signer::create(&again, &ADMIN),
        Signer::create(&again, &ADMIN)
    );
    assert_eq!(one.unwrap().public(), two.unwrap().public());
}

static ADMIN: std::sync::LazyLock<Actor> = std::sync::LazyLock::new(admin);

/// Shakes hands over a socket: whether each side takes the other.
async fn handshake(
    server: &Arc<ServerCertificate>,
    authority: &Authority,
    trusts: &[tokio_rustls::rustls::pki_types::CertificateDer<'static>],
    client: Option<(Vec<Vec<u8>>, &KeyPair)>,
) -> Result<bool, String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types};
    let resolver = Arc::clone(server);
    let config = server_config(resolver, Some(authority), &[b"h2"]).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepts = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let mut stream = acceptor.accept(stream).await.map_err(|e| e.to_string())?;
        let known = stream.get_ref().1.peer_certificates().is_some();
        stream.write_all(b"x").await.map_err(|e| e.to_string())?;
        stream.flush().await.map_err(|e| e.to_string())?;
        Ok::<_, String>(known)
    });
    let mut roots = RootCertStore::empty();
    for root in trusts {
        roots.add(root.clone()).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = chain.into_iter().map(Into::into).collect();
            let key = pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = pki_types::ServerName::try_from("controller.example").unwrap();
    let mut stream = connector
        .connect(name, stream)
        .await
        .map_err(|e| e.to_string())?;
    let mut byte = [0];
    let read = stream
        .read_exact(&mut byte)
        .await
        .map_err(|e| e.to_string());
    let known = accepts.await.unwrap()?;
    read.map(|_| known)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_authorities_are_trusted_from_rotation_to_retirement() {
    let f = fixture();
    let now = Timestamp::now();
    let authority = Authority::open(Arc::clone(&f.store), None, None, now)
        .await
        .unwrap();
    let names = vec!["controller.example".to_owned(), "127.0.0.1".to_owned()];
    let server = Arc::new(ServerCertificate::new(authority.clone(), names, now).unwrap());
    let old_roots = authority.certificates();
    let (request, key) = request();
    let old = authority.issue_node(&new_node_id(), &request, now).unwrap();
    assert_eq!(
        handshake(&server, &authority, &old_roots, None).await,
        Ok(false)
    );
    let shown = || Some((old.chain.clone(), &key));
    assert_eq!(
        handshake(&server, &authority, &old_roots, shown()).await,
        Ok(true)
    );

    authority.rotate(&admin(), now).await.unwrap();
    assert!(
        authority.rotate(&admin(), now).await.is_err(),
        "one at a time"
    );
    assert!(
        !server.renew(now).unwrap(),
        "controllers show the old one still"
    );
    let new = authority.issue_node(&new_node_id(), &request, now).unwrap();
    assert_eq!(new.authorities.len(), 2);
    assert_eq!(
        handshake(&server, &authority, &old_roots, shown()).await,
        Ok(true)
    );
    let newer = Some((new.chain.clone(), &key));
    assert_eq!(
        handshake(&server, &authority, &old_roots, newer.clone()).await,
        Ok(true)
    );

    authority.retire(&admin(), false).await.unwrap();
    assert!(server.renew(now).unwrap());
    assert!(
        handshake(&server, &authority, &old_roots, None)
            .await
            .is_err()
    );
    let roots = authority.certificates();
    assert!(
        handshake(&server, &authority, &roots, shown())
            .await
            .is_err()
    );
    assert_eq!(
        handshake(&server, &authority, &roots, newer).await,
        Ok(true)
    );
    assert!(
        server.renew(now + SignedDuration::from_hours(100)).unwrap(),
        "half of its time is over"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_refused() {
    let (f, g) = (fixture(), fixture());
    let now = Timestamp::now();
    let open = |store: &Arc<dyn Store>| Authority::open(Arc::clone(store), None, None, now);
    let (ours, theirs) = (open(&f.store).await.unwrap(), open(&g.store).await.unwrap());
    let names = vec!["controller.example".to_owned()];
    let server = Arc::new(ServerCertificate::new(ours.clone(), names, now).unwrap());
    let (request, key) = request();
    let foreign = theirs.issue_node(&new_node_id(), &request, now).unwrap();
    let roots = ours.certificates();
    assert!(
        handshake(&server, &ours, &roots, Some((foreign.chain, &key)))
            .await
            .is_err()
    );
}
