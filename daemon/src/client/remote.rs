//! Talking to a daemon.

use tonic::{Code, Response, Status};
use xdpgate_api::v1::{GetStatsRequest, GetStatusRequest};

use super::args::Remote;
use super::connect::{Client, connect, tls_reason};
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
    call: impl AsyncFnOnce(Client) -> Result<Response<R>, Status>,
) -> Result<R, Failure> {
    let server = &remote.server;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::operation)?;
    runtime.block_on(async {
        let client = connect(remote).await?;
        let response = call(client)
            .await
            .map_err(|status| refused(server, &status))?;
        Ok(response.into_inner())
    })
}

/// What the daemon refused, by whose fault it is.
fn refused(server: &Endpoint, status: &Status) -> Failure {
    // In TLS 1.3 a client learns only after its handshake that the server did not take its certificate.
    if let Some(said) = tls_reason(status) {
        return Failure::operation(format!("{server}: {said}"));
    }
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
