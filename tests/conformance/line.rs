//! A line between a store and a server.
//!
//! Owns: passing everything on, and showing what the client sends to whoever looks at it or changes it.
//! Does not own: what is looked for.

use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What sees all that clients send, piece by piece.
type Look = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// Passes everything on to a server. Answers the port to connect to.
pub(crate) async fn line(to: SocketAddr, look: impl Fn(&mut [u8]) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let look: Look = Arc::new(look);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(pass_on(client, to, Arc::clone(&look)));
        }
    });
    port
}

async fn pass_on(client: TcpStream, to: SocketAddr, look: Look) {
    let server = TcpStream::connect(to).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asked = async move {
        let mut piece = vec![0; 64 << 10];
        while let Ok(len @ 1..) = from_client.read(&mut piece).await {
            look(&mut piece[..len]);
            if to_server.write_all(&piece[..len]).await.is_err() {
                break;
            }
        }
    };
    _ = tokio::join!(asked, tokio::io::copy(&mut from_server, &mut to_client));
}
