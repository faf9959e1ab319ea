//! A door into the lab: a port on the machine's loopback that leads to an address of the lab's network, for this
//! process and whoever is on this machine. The controller behind it lets nobody in without its token.

use std::{io, net::SocketAddr};

use fracas_sim::lab::{Family, LabError, Outside};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::{AbortHandle, JoinSet},
};

/// An open door; it closes when this is dropped.
#[derive(Debug)]
pub(super) struct Door {
    /// Where it is on this machine.
    pub(super) at: SocketAddr,
    porter: AbortHandle,
}

impl Door {
    /// Opens one to an IPv4 address.
    pub(super) async fn open(lab: Outside, to: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let at = listener.local_addr()?;
        // Those inside end with the porter, since they are in its set.
        let porter = tokio::spawn(keep(listener, lab, to)).abort_handle();
        Ok(Self { at, porter })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.porter.abort();
    }
}

async fn keep(listener: TcpListener, lab: Outside, to: SocketAddr) {
    let mut inside = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = inside.join_next() => {}
            came = listener.accept() => {
                // Out of descriptors, say: the caller sees a closed connection.
                let Ok((stream, _)) = came else { continue };
                inside.spawn(lead(stream, lab.clone(), to));
            }
        }
    }
}

async fn lead(mut outside: TcpStream, lab: Outside, to: SocketAddr) -> io::Result<()> {
    let gone = |e: LabError| io::Error::other(e.to_string());
    let socket = tokio::task::spawn_blocking(move || lab.tcp_socket(Family::V4)).await?.map_err(gone)?;
    let socket = std::net::TcpStream::from(socket);
    socket.set_nonblocking(true)?;
    let mut inside = TcpSocket::from_std_stream(socket).connect(to).await?;
    // What is written is meant to go at once: these are calls and answers.
    outside.set_nodelay(true)?;
    inside.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut outside, &mut inside).await.map(|_| ())
}
