//! A controller in this process, and clients of it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Once};

use jiff::Timestamp;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use xdpgate_controller::auth::authority::Authority;
use xdpgate_controller::auth::join::Joining;
use xdpgate_controller::auth::{self, Actor, Auth, Secret};
use xdpgate_controller::core::Core;
use xdpgate_controller::domain::Role;
use xdpgate_controller::feed::{Feeds, Settings};
use xdpgate_controller::fleet::{Config, Fleet, targets};
use xdpgate_controller::http::{App, Options, serve};
use xdpgate_controller::store::Store;
use xdpgate_controller::store::sqlite::Sqlite;

/// The password of every user here.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// A running controller.
pub(crate) struct Api {
    pub(crate) core: Core,
    pub(crate) joining: Joining,
    pub(crate) fleet: Fleet,
    pub(crate) app: App,
    pub(crate) feeds: Feeds,
    pub(crate) address: SocketAddr,
    pub(crate) admin: String,
    pub(crate) operator: String,
    pub(crate) viewer: String,
    pub(crate) client: reqwest::Client,
    /// Whatever was answered.
    pub(crate) answers: Arc<Mutex<Vec<String>>>,
    folder: tempfile::TempDir,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

/// A session, as a browser has it.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) cookie: String,
    pub(crate) csrf: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The answer, which must have this status.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    /// A refusal of this status and code, in the form that all have.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> Value {
        let answer = self.is(status);
        assert_eq!(
            answer.header("content-type"),
            "application/problem+json",
            "{}",
            answer.text
        );
        let problem = answer.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["request_id"], answer.header("x-request-id"));
        let detail = problem["detail"].as_str().unwrap();
        assert!(!detail.is_empty() && !detail.contains('\n'), "{problem}");
        problem
    }
}

pub(crate) fn local() -> Actor {
    Actor {
        name: "test".into(),
        role: Role::Admin,
        origin: "local".into(),
    }
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        watch_log();
        let folder = tempfile::tempdir().unwrap();
        Self::over(folder, options, true).await
    }

    async fn over(folder: tempfile::TempDir, options: Options, fresh: bool) -> Self {
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(folder.path().join("c.db")).unwrap());
        let core = Core::open(Arc::clone(&store)).await.unwrap();
        let auth = Auth::new(Arc::clone(&store), auth::Options::default());
        let now = Timestamp::now();
        let authority = Authority::open(store, None, None, now).await.unwrap();
        let joining = Joining::new(core.clone(), authority, None);
        let mut tokens = Vec::new();
        for (name, role) in [
            ("root", Role::Admin),
            ("oscar", Role::Operator),
            ("vera", Role::Viewer),
        ] {
            if fresh {
                let password = Some(Secret::from(PASSWORD));
                let new = auth::NewUser {
                    name: name.into(),
                    role,
                    password,
                };
                auth.create_user(&local(), new, now).await.unwrap();
            }
            let new = auth::NewToken {
                name: "test".into(),
                role,
                expires: None,
            };
            let (_, token) = auth.create_token(&local(), name, new, now).await.unwrap();
            tokens.push(token.reveal().to_owned());
        }
        let fleet = Fleet::start(Config::default(), targets(&core), None, None);
        let view = Arc::new(fleet.clone());
        let feeds = Feeds::new(core.clone(), Settings::default(), "test").unwrap();
        let app = App::new(core.clone(), auth, joining.clone(), view, None, options);
        let app = app.with_feeds(feeds.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(serve(listener, app.clone(), None, async {
            let _ = stopped.await;
        }));
        let [admin, operator, viewer] = tokens.try_into().unwrap();
        Self {
            core,
            joining,
            fleet,
            app,
            feeds,
            address,
            admin,
            operator,
            viewer,
            client: reqwest::Client::new(),
            answers: Arc::default(),
            folder,
            stop,
            served,
        }
    }

    /// Another process over the same file.
    pub(crate) async fn restart(self) -> Self {
        let Self {
            folder,
            stop,
            served,
            client,
            core,
            joining,
            fleet,
            app,
            feeds,
            ..
        } = self;
        stop.send(()).unwrap();
        drop(client);
        served.await.unwrap().unwrap();
        drop((core, joining, fleet, app, feeds));
        // The lock of the file goes with the last user of the store.
        for _ in 0..100 {
            if Sqlite::open(folder.path().join("c.db")).is_ok() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        Self::over(folder, Options::default(), false).await
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("http://{}/api/v1{path}", self.address))
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        self.answers
            .lock()
            .unwrap()
            .push(format!("{headers:?} {text}"));
        Answer {
            status,
            headers,
            text,
        }
    }

    /// By a token, with a body of JSON unless it is null.
    pub(crate) async fn by(&self, token: &str, method: Method, path: &str, body: Value) -> Answer {
        let mut request = self.request(method, path).bearer_auth(token);
        if !body.is_null() {
            request = request.json(&body);
        }
        self.send(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.by(&self.admin, Method::GET, path, Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.by(&self.admin, Method::POST, path, body).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.by(&self.admin, Method::PUT, path, body).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.by(&self.admin, Method::PATCH, path, body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.by(&self.admin, Method::DELETE, path, Value::Null)
            .await
    }

    pub(crate) async fn login(&self, user: &str, password: &str) -> Answer {
        let body = json!({ "user": user, "password": password });
        self.send(self.request(Method::POST, "/session").json(&body))
            .await
    }

    pub(crate) async fn session(&self, user: &str) -> Session {
        Session::of(&self.login(user, PASSWORD).await.is(201))
    }

    pub(crate) async fn within(
        &self,
        session: &Session,
        method: Method,
        path: &str,
        body: Value,
    ) -> Answer {
        let request = self.request(method, path).header("cookie", &session.cookie);
        let mut request = request.header("x-csrf-token", &session.csrf);
        if !body.is_null() {
            request = request.json(&body);
        }
        self.send(request).await
    }

    /// The actions of the audit log, the newest first.
    pub(crate) async fn actions(&self) -> Vec<String> {
        let page = self.get("/audit?limit=1000").await.is(200).json();
        let items = page["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["action"].as_str().unwrap().to_owned())
            .collect()
    }

    /// A node that joined by a token with these labels; its id and what came with it.
    pub(crate) async fn node(
        &self,
        labels: Value,
    ) -> (String, xdpgate_api::fleet::v1::JoinResponse) {
        let made = self
            .post("/join-tokens", json!({ "labels": labels }))
            .await
            .is(201)
            .json();
        let request = join_request(made["secret"].as_str().unwrap());
        let joined = self
            .joining
            .join(&request, "198.51.100.1", Timestamp::now())
            .await
            .unwrap();
        (joined.node_id.clone(), joined)
    }
}

impl Session {
    pub(crate) fn of(answer: &Answer) -> Self {
        let cookie = answer
            .header("set-cookie")
            .split(';')
            .next()
            .unwrap()
            .to_owned();
        let csrf = answer.json()["csrf_token"].as_str().unwrap().to_owned();
        Self { cookie, csrf }
    }
}

pub(crate) fn join_request(token: &str) -> xdpgate_api::fleet::v1::JoinRequest {
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    xdpgate_api::fleet::v1::JoinRequest {
        token: token.to_owned(),
        csr: csr.der().to_vec(),
        name: "edge".to_owned(),
        ..Default::default()
    }
}

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// All that was logged in this process.
pub(crate) fn logged() -> Vec<String> {
    LOG.lock().unwrap().clone()
}

fn watch_log() {
    struct Capture;
    impl log::Log for Capture {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            if record.target().starts_with("xdpgate") {
                let mut text = record.args().to_string();
                struct Pairs<'a>(&'a mut String);
                impl<'kvs> log::kv::VisitSource<'kvs> for Pairs<'_> {
                    fn visit_pair(
                        &mut self,
                        key: log::kv::Key<'kvs>,
                        value: log::kv::Value<'kvs>,
                    ) -> Result<(), log::kv::Error> {
                        self.0.push_str(&format!(" {key}={value}"));
                        Ok(())
                    }
                }
                let _ = record.key_values().visit(&mut Pairs(&mut text));
                LOG.lock().unwrap().push(text);
            }
        }
        fn flush(&self) {}
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Capture).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
    });
}
