//! A web server of lists, on loopback.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use tokio::task::JoinHandle;

type Answer = Arc<dyn Fn(&Asked) -> Response<Body> + Send + Sync>;

/// What it was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub uri: Uri,
    pub headers: HeaderMap,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

#[derive(Default)]
struct Shared {
    answers: Mutex<HashMap<String, (Answer, Duration)>>,
    asked: Mutex<Vec<Asked>>,
}

pub struct Server {
    pub url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn new() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let shared = Arc::<Shared>::default();
        let app = axum::Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.expect("a server") });
        Self { url, shared, task }
    }

    /// What a path has from now on.
    pub fn serve(
        &self,
        path: &str,
        answer: impl Fn(&Asked) -> Response<Body> + Send + Sync + 'static,
    ) {
        self.serve_late(path, Duration::ZERO, answer);
    }

    /// What it has, and how long it takes until it says so.
    pub fn serve_late(
        &self,
        path: &str,
        late: Duration,
        answer: impl Fn(&Asked) -> Response<Body> + Send + Sync + 'static,
    ) {
        let answer: Answer = Arc::new(answer);
        self.shared
            .answers
            .lock()
            .unwrap()
            .insert(path.to_owned(), (answer, late));
    }

    /// A text from now on.
    pub fn text(&self, path: &str, text: impl Into<String>) {
        let text = text.into();
        self.serve(path, move |_| Response::new(Body::from(text.clone())));
    }

    /// Everything that it was asked.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn status(status: u16) -> Response<Body> {
    let mut response = Response::new(Body::from("203.0.113.7\n"));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

pub fn with(mut response: Response<Body>, name: &'static str, value: &str) -> Response<Body> {
    response.headers_mut().insert(name, value.parse().unwrap());
    response
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let asked = Asked {
        uri: request.uri().clone(),
        headers: request.headers().clone(),
    };
    shared.asked.lock().unwrap().push(asked.clone());
    let answer = shared
        .answers
        .lock()
        .unwrap()
        .get(asked.uri.path())
        .cloned();
    let Some((answer, late)) = answer else {
        return status(404);
    };
    tokio::time::sleep(late).await;
    answer(&asked)
}
