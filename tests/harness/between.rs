//! A party between the broker and its clients: hands packets on as they come, but for those messages to clients that a test keeps back or drops.
//!
//! In: the broker's address, and what becomes of a message. Out: an address that stands for the broker's. To a client it is a broker that
//! turned hostile, or a bridge whose link was cut. What was kept back is delivered when the test wants it, on the connection that it was for.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::Packet;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is delivered.
    Pass,
    /// It is delivered later.
    Hold,
    /// It is not delivered. To the broker its client has not acknowledged it.
    Drop,
}

type Judge = dyn FnMut(&str, &[u8]) -> Fate + Send;
type Client = Arc<Mutex<TcpStream>>;

struct Shared {
    judge: Mutex<Box<Judge>>,
    /// What was kept back, oldest first, and for whom.
    held: Mutex<Vec<(Client, Vec<u8>)>>,
    ending: AtomicBool,
}

/// See the module.
pub struct Between {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that failed says so by itself.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Between {
    /// Stands before the broker at `broker`. All messages pass.
    ///
    /// # Panics
    /// If there is no port to listen on.
    pub fn start(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on this machine");
        let address = listener.local_addr().expect("the port");
        let (judge, held) = (Mutex::new(Box::new(|_: &str, _: &[u8]| Fate::Pass) as Box<Judge>), Mutex::default());
        let shared = Arc::new(Shared { judge, held, ending: AtomicBool::new(false) });
        let of_thread = Arc::clone(&shared);
        let accepting = thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if of_thread.ending.load(Ordering::Relaxed) {
                    return;
                }
                // A broker that is down is one that a client cannot reach either.
                if let Ok(broker) = TcpStream::connect(broker) {
                    connect(client, broker, &of_thread);
                }
            }
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    /// The address that stands for the broker's.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Decides from now on by topic and payload what becomes of a message to a client.
    pub fn judge(&self, judge: impl FnMut(&str, &[u8]) -> Fate + Send + 'static) {
        *lock(&self.shared.judge) = Box::new(judge);
    }

    /// How many messages are kept back.
    pub fn held(&self) -> usize {
        lock(&self.shared.held).len()
    }

    /// Delivers what was kept back, oldest first. What was for a connection that has ended is lost.
    pub fn release(&self) {
        for (client, packet) in lock(&self.shared.held).drain(..) {
            let _ = lock(&client).write_all(&packet);
        }
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        // It waits for a client.
        let _ = TcpStream::connect(self.address);
        self.accepting.take().map(JoinHandle::join);
    }
}

/// Hands on what comes from either side, until one of them closes.
fn connect(client: TcpStream, broker: TcpStream, shared: &Arc<Shared>) {
    let of_client = |stream: &TcpStream| stream.try_clone().expect("a handle of a socket");
    for stream in [&client, &broker] {
        stream.set_nodelay(true).expect("an option of TCP");
    }
    let (mut up, mut down) = ((of_client(&client), of_client(&broker)), (client, broker));
    thread::spawn(move || {
        let _ = io::copy(&mut up.0, &mut up.1);
        let _ = up.1.shutdown(Shutdown::Both);
    });
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let client = Arc::new(Mutex::new(of_client(&down.0)));
        while let Ok(packet) = packet(&mut down.1) {
            match fate(&packet, &shared) {
                Fate::Pass if lock(&client).write_all(&packet).is_err() => break,
                Fate::Pass | Fate::Drop => {}
                Fate::Hold => lock(&shared.held).push((Arc::clone(&client), packet)),
            }
        }
        let _ = down.0.shutdown(Shutdown::Both);
    });
}

fn fate(packet: &[u8], shared: &Shared) -> Fate {
    match Packet::read(&mut BytesMut::from(packet), usize::MAX) {
        Ok(Packet::Publish(publish)) => (lock(&shared.judge))(&publish.topic, &publish.payload),
        _ => Fate::Pass,
    }
}

/// The next packet as it is: a fixed header with the length of what follows (MQTT 3.1.1, section 2.2).
fn packet(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut packet = vec![0; 2];
    from.read_exact(&mut packet)?;
    while packet[packet.len() - 1] & 0x80 != 0 {
        packet.push(0);
        let last = packet.len() - 1;
        from.read_exact(&mut packet[last..])?;
    }
    let length = packet[1..].iter().rev().fold(0, |length, byte| length << 7 | usize::from(byte & 0x7f));
    let header = packet.len();
    packet.resize(header + length, 0);
    from.read_exact(&mut packet[header..])?;
    Ok(packet)
}
