//! Talking to a controller.

use std::error::Error as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Body, Method, Response, StatusCode, Url};
use serde_json::Value;
use xdpgate_service::Failure;

use super::saved::Saved;

/// Where a controller of this host is.
const DEFAULT: &str = "http://127.0.0.1:8480";
/// What the other end is given to say anything, longer than any answer that is waited for.
const SILENCE: Duration = Duration::from_secs(330);
const CONNECT: Duration = Duration::from_secs(10);
const HEADING: &str = "Options of all commands that ask a controller";

/// Which controller, as whom, and in which form.
#[derive(Debug, Clone, clap::Args)]
pub struct Remote {
    /// Where the controller is [default: that of the last login, or http://127.0.0.1:8480]
    #[arg(long, value_name = "URL", global = true, env = "XDPGATE_CONTROLLER_SERVER", help_heading = HEADING)]
    pub server: Option<String>,
    /// An API token; others of this host may see it here, so better a file, the variable or `login`
    #[arg(long, value_name = "TOKEN", global = true, env = "XDPGATE_CONTROLLER_TOKEN", hide_env_values = true,
        help_heading = HEADING)]
    pub token: Option<String>,
    /// A file with an API token; only its owner may read it
    #[arg(long, value_name = "FILE", global = true, env = "XDPGATE_CONTROLLER_TOKEN_FILE", help_heading = HEADING)]
    pub token_file: Option<PathBuf>,
    /// With https: the authority of the controller's certificate, PEM
    #[arg(long, value_name = "FILE", global = true, env = "XDPGATE_CONTROLLER_CA", help_heading = HEADING)]
    pub ca: Option<PathBuf>,
    /// Print the JSON of the API
    #[arg(long, global = true, help_heading = HEADING)]
    pub json: bool,
}

/// A controller.
#[derive(Debug, Clone)]
pub(super) struct Api {
    http: reqwest::Client,
    server: Url,
    token: Option<String>,
    /// Whether JSON is printed.
    pub(super) json: bool,
}

/// A request to be.
#[must_use]
pub(super) struct Call<'a> {
    api: &'a Api,
    method: Method,
    url: Url,
    headers: Vec<(&'static str, String)>,
    body: Option<Body>,
}

impl Remote {
    /// The controller, with what identifies us.
    pub(super) fn open(&self) -> Result<Api, Failure> {
        let saved = Saved::load()?;
        let server = self.server(&saved)?;
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) => Some(token.trim().to_owned()),
            (None, Some(file)) => Some(super::secret::read(file)?),
            (None, None) => saved
                .token(server.as_str())
                .map(|login| login.token.clone()),
        };
        self.connect(server, token)
    }

    /// The controller, as nobody yet.
    pub(super) fn open_as_nobody(&self) -> Result<Api, Failure> {
        let server = self.server(&Saved::load()?)?;
        self.connect(server, None)
    }

    fn server(&self, saved: &Saved) -> Result<Url, Failure> {
        let text = self.server.as_deref().or(saved.server()).unwrap_or(DEFAULT);
        let wrong = |reason: &str| Failure::input("--server", format!("{text:?}: {reason}"));
        let url: Url = text
            .parse()
            .map_err(|_| wrong("write it as https://HOST:PORT"))?;
        let host = url.host_str().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let loopback =
            host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        match url.scheme() {
            "https" => Ok(url),
            "http" if loopback => Ok(url),
            "http" => Err(wrong(
                "a token would go there in the clear: use https beyond loopback",
            )),
            _ => Err(wrong("write it as https://HOST:PORT")),
        }
    }

    fn connect(&self, server: Url, token: Option<String>) -> Result<Api, Failure> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("xdpgate-controller/", env!("CARGO_PKG_VERSION")));
        if server.scheme() == "http" {
            // It is this very host.
            builder = builder.no_proxy();
        }
        if let Some(file) = &self.ca {
            let wrong = |e: &dyn std::fmt::Display| {
                Failure::input("--ca", format!("{}: {e}", file.display()))
            };
            let pem = std::fs::read(file).map_err(|e| wrong(&e))?;
            let certificates =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| wrong(&e))?;
            if certificates.is_empty() {
                return Err(wrong(&"there is no certificate in it"));
            }
            builder = builder.tls_built_in_root_certs(false);
            for certificate in certificates {
                builder = builder.add_root_certificate(certificate);
            }
        }
        let http = builder.build().map_err(Failure::operation)?;
        Ok(Api {
            http,
            server,
            token,
            json: self.json,
        })
    }
}

impl Api {
    /// Where it is.
    pub(super) fn server(&self) -> &str {
        self.server.as_str()
    }

    /// Where nodes are likely to find it.
    pub(super) fn nodes(&self) -> String {
        format!(
            "{}:8443",
            self.server.host_str().unwrap_or("controller.example")
        )
    }

    pub(super) fn get(&self, path: &[&str]) -> Call<'_> {
        self.call(Method::GET, path)
    }

    pub(super) fn post(&self, path: &[&str]) -> Call<'_> {
        self.call(Method::POST, path)
    }

    pub(super) fn put(&self, path: &[&str]) -> Call<'_> {
        self.call(Method::PUT, path)
    }

    pub(super) fn patch(&self, path: &[&str]) -> Call<'_> {
        self.call(Method::PATCH, path)
    }

    pub(super) fn delete(&self, path: &[&str]) -> Call<'_> {
        self.call(Method::DELETE, path)
    }

    /// A request below `/api/v1`, by the parts of its path.
    fn call(&self, method: Method, path: &[&str]) -> Call<'_> {
        let mut url = self.server.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        Call {
            api: self,
            method,
            url,
            headers: Vec::new(),
            body: None,
        }
    }

    /// All items of a list, page after page, or the first ones. One page is as it came.
    pub(super) async fn all(
        &self,
        path: &[&str],
        query: &[(&str, Option<String>)],
        most: Option<usize>,
    ) -> Result<Value, Failure> {
        let mut whole: Option<Value> = None;
        let mut cursor = None;
        loop {
            let have = whole.as_ref().map_or(0, |page| items(page).len());
            let left = most.map_or(1_000, |most| most.saturating_sub(have).clamp(1, 1_000));
            let mut call = self
                .get(path)
                .query("limit", left)
                .query_some("cursor", cursor.take());
            for (name, value) in query {
                call = call.query_some(name, value.as_deref());
            }
            let mut page = call.json().await?;
            cursor = page.get("next").and_then(Value::as_str).map(str::to_owned);
            whole = Some(match whole {
                None => page,
                Some(mut whole) => {
                    let more = page.get_mut("items").map(Value::take);
                    if let (Some(Value::Array(all)), Some(Value::Array(more))) =
                        (whole.get_mut("items"), more)
                    {
                        all.extend(more);
                    }
                    whole
                }
            });
            let whole = whole.as_mut().filter(|page| {
                cursor.is_none() || most.is_some_and(|most| items(page).len() >= most)
            });
            if let Some(whole) = whole {
                let mut whole = whole.take();
                if let (Value::Object(fields), None) = (&mut whole, &cursor) {
                    fields.remove("next");
                }
                return Ok(whole);
            }
        }
    }
}

/// The items of a page.
pub(super) fn items(page: &Value) -> &[Value] {
    page.get("items")
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

impl Call<'_> {
    pub(super) fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.url
            .query_pairs_mut()
            .append_pair(name, &value.to_string());
        self
    }

    pub(super) fn query_some(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With a body of this kind.
    pub(super) fn body(mut self, kind: &str, body: impl Into<Body>) -> Self {
        self.body = Some(body.into());
        self.header("content-type", kind)
    }

    /// With a body of JSON.
    pub(super) fn value(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// The answer, good or not.
    async fn any(self) -> Result<Response, Failure> {
        let mut request = self.api.http.request(self.method, self.url);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        if let Some(token) = &self.api.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = self.body {
            request = request.body(body);
        }
        request.send().await.map_err(|e| self.api.unreachable(&e))
    }

    /// The answer, if it is a good one.
    pub(super) async fn send(self) -> Result<Response, Failure> {
        let api = self.api;
        let answer = self.any().await?;
        match answer.status().is_success() {
            true => Ok(answer),
            false => Err(api.refused(answer).await),
        }
    }

    /// The answer as JSON; null if it has no body.
    pub(super) async fn json(self) -> Result<Value, Failure> {
        let api = self.api;
        api.read(self.send().await?).await
    }

    /// The answer as JSON; `None` if there is no such thing.
    pub(super) async fn found(self) -> Result<Option<Value>, Failure> {
        let api = self.api;
        let answer = self.any().await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => api.read(answer).await.map(Some),
            _ => Err(api.refused(answer).await),
        }
    }

    /// The answer as text.
    pub(super) async fn text(self) -> Result<String, Failure> {
        let api = self.api;
        self.send()
            .await?
            .text()
            .await
            .map_err(|e| api.unreachable(&e))
    }
}

impl Api {
    async fn read(&self, answer: Response) -> Result<Value, Failure> {
        let bytes = answer.bytes().await.map_err(|e| self.unreachable(&e))?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|e| {
            Failure::operation(format!("{}: what it answers is not JSON: {e}", self.server))
        })
    }

    /// The innermost reason says most.
    pub(super) fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let mut reason = error.source();
        while let Some(deeper) = reason.and_then(|e| e.source()) {
            reason = Some(deeper);
        }
        let reason = reason.map_or_else(|| error.to_string(), ToString::to_string);
        let mend = match error.is_connect() {
            true if reason.contains("certificate") => ": name the authority that made it by --ca",
            true => ": is a controller running there? --server says where",
            false => "",
        };
        Failure::operation(format!("{}: {reason}{mend}", self.server))
    }

    /// One line of a problem.
    async fn refused(&self, answer: Response) -> Failure {
        let status = answer.status();
        let after = answer
            .headers()
            .get("retry-after")
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        let body = answer.bytes().await.unwrap_or_default();
        let Ok(problem) = serde_json::from_slice::<Value>(&body) else {
            return Failure::operation(format!(
                "{}: it answers {status}: is that a controller?",
                self.server
            ));
        };
        let part = |name: &str| {
            problem
                .get(name)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
        };
        let mut line: Vec<&str> = part("object").into_iter().chain(part("field")).collect();
        line.push(part("detail").unwrap_or("refused"));
        let mut line = line.join(": ");
        if let Some(mend) = part("mend") {
            line = format!("{line}; {mend}");
        }
        match (status, after) {
            (StatusCode::UNAUTHORIZED, _) => line += "; `xdpgate-controller login` does that",
            (StatusCode::TOO_MANY_REQUESTS, Some(after)) => {
                line += &format!("; again in {after} s")
            }
            _ => (),
        }
        Failure::operation(line)
    }
}
