//! The addresses of a Kubernetes cluster's nodes and of their pods, from its API server.
//!
//! It is asked for all nodes now and then; nothing is watched. Nodes are few and change seldom, and who is asked again each
//! minute cannot miss a change.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::ACCEPT;
use reqwest::{Certificate, Client, StatusCode, Url};
use serde::Deserialize;
use xdpgate::policy::{AddressSet, Prefix};

use super::fetch::{FetchError, body, builder, connection, refused};

/// Nodes of one page; each has some 10 KiB, its list of images is most of it.
const PAGE: usize = 200;
/// The most bytes of one page.
const MAX_PAGE: u64 = 16 << 20;
/// The most nodes. Kubernetes itself is made for 5,000.
const MAX_NODES: usize = 50_000;
/// How often it begins anew because the list that it was reading is gone.
const MAX_STARTS: usize = 3;

/// Where an API server is, and as who it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiServer {
    /// As `https://10.96.0.1`.
    pub url: String,
    /// The file of the token; it is read anew each time, because tokens are renewed.
    pub token_file: PathBuf,
    /// The authority that signed its certificate, PEM.
    pub ca: PathBuf,
}

#[derive(Deserialize)]
struct Page {
    metadata: PageMeta,
    items: Vec<Node>,
}

#[derive(Deserialize)]
struct PageMeta {
    #[serde(default)]
    r#continue: String,
}

#[derive(Deserialize)]
struct Node {
    metadata: NodeMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct NodeMeta {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    addresses: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    r#type: String,
    address: String,
}

/// The addresses of all nodes (`InternalIP`, `ExternalIP`), and the prefixes of their pods where nodes have such.
///
/// # Errors
/// Any page that is not what it should be: then nothing of it counts, because a cluster of which half is known is one of
/// which half is not let in.
pub(super) async fn nodes(server: &ApiServer, timeout: Duration) -> Result<AddressSet, FetchError> {
    match tokio::time::timeout(timeout, read(server)).await {
        Ok(read) => read,
        Err(_) => Err(FetchError::Slow(timeout)),
    }
}

async fn read(server: &ApiServer) -> Result<AddressSet, FetchError> {
    let url = Url::parse(&server.url)
        .and_then(|url| url.join("/api/v1/nodes"))
        .map_err(|error| FetchError::Kubernetes(format!("{}: {error}", server.url)))?;
    let token = file(&server.token_file).await?;
    let client = client(server, &url).await?;
    for _ in 0..MAX_STARTS {
        let mut found = Vec::new();
        let mut count = 0;
        let mut after = String::new();
        loop {
            let Some(page) = page(&client, &url, token.trim(), &after).await? else {
                break; // what was being read is gone: from the beginning
            };
            count += page.items.len();
            if count > MAX_NODES {
                let reason = format!("more than {MAX_NODES} nodes");
                return Err(FetchError::Kubernetes(reason));
            }
            for node in &page.items {
                found.extend(prefixes(node)?);
            }
            after = page.metadata.r#continue;
            if after.is_empty() {
                return Ok(AddressSet::from_prefixes(found));
            }
        }
    }
    let reason = "the list of nodes was gone each time before it was read: 410".to_owned();
    Err(FetchError::Kubernetes(reason))
}

/// A page; `None` if what it continues is too old.
async fn page(
    client: &Client,
    url: &Url,
    token: &str,
    after: &str,
) -> Result<Option<Page>, FetchError> {
    let mut url = url.clone();
    url.query_pairs_mut()
        .append_pair("limit", &PAGE.to_string());
    if !after.is_empty() {
        url.query_pairs_mut().append_pair("continue", after);
    }
    let request = client
        .get(url)
        .bearer_auth(token)
        .header(ACCEPT, "application/json");
    let response = request.send().await.map_err(|error| connection(&error))?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::GONE if !after.is_empty() => return Ok(None),
        StatusCode::UNAUTHORIZED => {
            let reason =
                "the API server does not know the token: 401; look at feeds.kubernetes.token_file";
            return Err(FetchError::Kubernetes(reason.to_owned()));
        }
        StatusCode::FORBIDDEN => {
            let reason =
                "the token may not list nodes: 403; give its account get and list of nodes";
            return Err(FetchError::Kubernetes(reason.to_owned()));
        }
        _ => return Err(refused(&response)),
    }
    let bytes = body(response, MAX_PAGE).await?;
    let page = serde_json::from_slice(&bytes);
    page.map(Some)
        .map_err(|error| FetchError::Kubernetes(format!("no list of nodes: {error}")))
}

fn prefixes(node: &Node) -> Result<Vec<Prefix>, FetchError> {
    let name = &node.metadata.name;
    let wrong =
        |text: &str| FetchError::Kubernetes(format!("node {name}: {text:?} is not an address"));
    let mut found = Vec::new();
    for address in &node.status.addresses {
        if matches!(address.r#type.as_str(), "InternalIP" | "ExternalIP") {
            let text = &address.address;
            let address: IpAddr = text.parse().map_err(|_| wrong(text))?;
            found.push(Prefix::host(address));
        }
    }
    // podCIDR is the first of podCIDRs, and alone from servers that know only one.
    let mut pods = node.spec.pod_cidrs.as_slice();
    if pods.is_empty() && !node.spec.pod_cidr.is_empty() {
        pods = std::slice::from_ref(&node.spec.pod_cidr);
    }
    for text in pods {
        found.push(text.parse().map_err(|_| wrong(text))?);
    }
    Ok(found)
}

async fn client(server: &ApiServer, url: &Url) -> Result<Client, FetchError> {
    let mut client = builder().tls_built_in_root_certs(false);
    if url.scheme() == "https" {
        let pem = file(&server.ca).await?;
        let wrong = |error: reqwest::Error| {
            FetchError::Kubernetes(format!("{}: {error}", server.ca.display()))
        };
        for root in Certificate::from_pem_bundle(pem.as_bytes()).map_err(wrong)? {
            client = client.add_root_certificate(root);
        }
    }
    client.build().map_err(|error| connection(&error))
}

async fn file(path: &std::path::Path) -> Result<String, FetchError> {
    let text = tokio::fs::read_to_string(path).await;
    text.map_err(|error| FetchError::Kubernetes(format!("{}: {error}", path.display())))
}
