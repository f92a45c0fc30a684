//! Talking to a daemon.

use tonic::{Code, Response, Status};
use xdpgate_api::v1::{GetStatsRequest, GetStatusRequest};

use super::args::Remote;
use super::connect::{Client, broken_off, connect};
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
        let response = match call(client).await {
            Ok(response) => response,
            Err(status) if is_broken(&status) => {
                return Err(match broken_off(remote).await {
                    Some(said) => Failure::operation(format!("{server}: {said}")),
                    None => refused(server, &status),
                });
            }
            Err(status) => return Err(refused(server, &status)),
        };
        Ok(response.into_inner())
    })
}

/// Whether it is the connection that is at fault.
fn is_broken(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Cancelled | Code::Unknown
    )
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
        _ if is_broken(status) => {
            Failure::operation(format!("{server}: the connection broke: {message}"))
        }
        _ => Failure::operation(message),
    }
}
