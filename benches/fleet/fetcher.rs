//! Nodes that fetch the chunks of a snapshot, check each by its digest and build nothing of them: to build the same million
//! entries a hundred times would measure this process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use xdpgate_api::fleet::v1::{
    FetchRequest, FromNode, Hello, Result as Answer, Snapshot, fleet_client::FleetClient,
    from_controller::Message as Down, from_node::Message as Up, result::Outcome,
};

use crate::crowd::{Wire, dial};
use crate::ground::Member;

/// When it had all chunks, and their bytes before compression.
pub async fn fetch(
    place: usize,
    member: &Member,
    to: SocketAddr,
    wire: Arc<Wire>,
) -> Result<(Instant, usize), String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let channel = dial(place, member.tls.clone(), to, wire)
        .await
        .map_err(|e| failed(&e))?;
    let mut client = FleetClient::new(channel)
        .accept_compressed(CompressionEncoding::Zstd)
        .max_decoding_message_size(8 << 20);
    let (up, messages) = tokio::sync::mpsc::channel(4);
    let hello = Hello {
        protocol: 1,
        ..Hello::default()
    };
    let say = |message| FromNode {
        message: Some(message),
    };
    up.send(say(Up::Hello(hello)))
        .await
        .map_err(|e| failed(&e))?;
    let down = client.session(ReceiverStream::new(messages)).await;
    let mut down = down.map_err(|e| failed(&e))?.into_inner();
    while let Some(message) = down.message().await.map_err(|e| failed(&e))? {
        if let Some(Down::Snapshot(snapshot)) = message.message {
            let bytes = chunks(&mut client, &snapshot)
                .await
                .map_err(|e| failed(&e))?;
            let answer = Answer {
                state: snapshot.to,
                outcome: Outcome::Applied.into(),
                ..Answer::default()
            };
            up.send(say(Up::Result(answer)))
                .await
                .map_err(|e| failed(&e))?;
            let at = Instant::now();
            // It is on its way before the session ends.
            tokio::time::sleep(Duration::from_millis(100)).await;
            return Ok((at, bytes));
        }
    }
    Err("the session ended".to_owned())
}

async fn chunks(
    client: &mut FleetClient<tonic::transport::Channel>,
    snapshot: &Snapshot,
) -> Result<usize, Status> {
    let sets = snapshot.sets.iter().flat_map(|set| &set.chunks);
    let wanted: Vec<_> = snapshot
        .rules
        .iter()
        .chain(sets)
        .map(|chunk| chunk.digest.clone())
        .collect();
    let mut bytes = 0;
    for digests in wanted.chunks(256) {
        let request = FetchRequest {
            digests: digests.to_vec(),
        };
        let mut answers = client.fetch(request).await?.into_inner();
        for digest in digests {
            let chunk = answers
                .message()
                .await?
                .ok_or_else(|| Status::not_found("a chunk"))?;
            if Sha256::digest(&chunk.content)[..] != digest[..] {
                return Err(Status::data_loss("a chunk is not what its digest says"));
            }
            bytes += chunk.content.len();
        }
    }
    Ok(bytes)
}
