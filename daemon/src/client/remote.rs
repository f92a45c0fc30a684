//! Talking to a daemon.

use std::io;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint as Transport};
use tonic::{Code, Response, Status};
use xdpgate_api::MAX_MESSAGE;
use xdpgate_api::v1::firewall_client::FirewallClient;
use xdpgate_api::v1::{GetStatsRequest, GetStatusRequest};

use super::args::Remote;
use super::{print, print_json, show};
use crate::endpoint::Endpoint;
use crate::failure::Failure;

pub(super) fn status(remote: &Remote) -> Result<(), Failure> {
    let status = call(remote, async |mut client| {
        client.get_status(GetStatusRequest {}).await
    })?;
    match remote.json {
        true => print_json(&show::status_json(&status)),
        false => print(&show::status_text(&status)),
    }
}

pub(super) fn stats(remote: &Remote) -> Result<(), Failure> {
    let stats = call(remote, async |mut client| {
        client.get_stats(GetStatsRequest {}).await
    })?;
    match remote.json {
        true => print_json(&show::stats_json(&stats)),
        false => print(&show::stats_text(&stats)),
    }
}

/// Connects, makes one call, and puts what goes wrong into one line.
pub(super) fn call<R>(
    remote: &Remote,
    call: impl AsyncFnOnce(FirewallClient<Channel>) -> Result<Response<R>, Status>,
) -> Result<R, Failure> {
    let server = &remote.server;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::operation)?;
    runtime.block_on(async {
        let client = connect(server).await?;
        let response = call(client)
            .await
            .map_err(|status| refused(server, &status))?;
        Ok(response.into_inner())
    })
}

async fn connect(server: &Endpoint) -> Result<FirewallClient<Channel>, Failure> {
    let transport = Transport::from_shared(server.uri())
        .map_err(|e| Failure::input(server, e))?
        .connect_timeout(CONNECT_TIMEOUT);
    let channel = transport
        .connect()
        .await
        .map_err(|e| unreachable(server, &e))?;
    Ok(FirewallClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE))
}

/// Why there is no connection: what the system said, and what to do.
fn unreachable(server: &Endpoint, error: &tonic::transport::Error) -> Failure {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let mend = match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::PermissionDenied) => "use sudo, or a socket that you may open",
        _ => "is xdpgated running? --server or XDPGATE_SERVER says where",
    };
    Failure::operation(format!("no daemon answers at {server}: {cause}; {mend}"))
}

/// What the daemon refused, by whose fault it is.
fn refused(server: &Endpoint, status: &Status) -> Failure {
    let message = match status.message() {
        "" => status.code().description(),
        message => message,
    };
    match status.code() {
        Code::InvalidArgument => Failure::Input(message.to_owned()),
        Code::Unimplemented => Failure::operation(format!("{server}: {message}; is it xdpgated?")),
        Code::Unavailable | Code::Cancelled | Code::Unknown => {
            Failure::operation(format!("{server}: the connection broke: {message}"))
        }
        _ => Failure::operation(message),
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
