//! nginx over what the arena serves, and lines of a given latency and bandwidth before it.
//!
//! Invariant: all contenders of a case are served by the same nginx over the same kind of line, and
//! bytes are counted where they leave or arrive, not where they are asked for.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use modelfs_test_support::{Line, ShapedProxy};

/// Longest time until nginx listens.
const PATIENCE: Duration = Duration::from_secs(10);
/// nginx writes its log when an answer is over, which may be after the client has it.
const LOGGED: Duration = Duration::from_millis(100);

/// A running nginx.
pub struct Nginx {
    address: SocketAddr,
    log: PathBuf,
    child: Child,
}

/// How a contender reaches the server.
pub struct Net<'a> {
    nginx: &'a Nginx,
    proxy: Option<ShapedProxy>,
}

impl Nginx {
    pub fn start(root: &Path) -> Self {
        let address = free_address();
        let at = root.display();
        // Each answer's bytes are a line of the log.
        let config = format!(
            "user root; daemon off; master_process off; pid {at}/nginx.pid;\n\
             error_log {at}/nginx.error;\n\
             events {{ worker_connections 512; }}\n\
             http {{ log_format bytes '$bytes_sent'; access_log {at}/nginx.log bytes;\n\
             sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000;\n\
             client_body_temp_path {at}/t; proxy_temp_path {at}/t; fastcgi_temp_path {at}/t;\n\
             uwsgi_temp_path {at}/t; scgi_temp_path {at}/t;\n\
             server {{ listen {address}; root {at}/served; autoindex on; }} }}\n"
        );
        let path = root.join("nginx.conf");
        fs::write(&path, config).expect("own folder");
        let child = Command::new("nginx")
            .arg("-p")
            .arg(root)
            .arg("-c")
            .arg(&path)
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts: apt-get install nginx-light");
        let nginx = Self { address, log: root.join("nginx.log"), child };
        let started = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            assert!(started.elapsed() < PATIENCE, "nginx does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        nginx
    }

    /// As near as it is.
    pub fn direct(&self) -> Net<'_> {
        Net { nginx: self, proxy: None }
    }

    /// Behind a line.
    pub fn behind(&self, line: Line) -> Net<'_> {
        Net { nginx: self, proxy: Some(ShapedProxy::start(self.address, line)) }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Net<'_> {
    /// The URL of a path below what is served.
    pub fn url(&self, path: &str) -> String {
        let address = self.proxy.as_ref().map_or(self.nginx.address, ShapedProxy::address);
        format!("http://{address}/{path}")
    }

    /// The registry of the models.
    pub fn registry(&self) -> String {
        self.url("registry")
    }

    /// Bytes that went to clients so far, headers included: those that arrived, of a line.
    pub fn bytes(&self) -> u64 {
        if let Some(proxy) = &self.proxy {
            return proxy.delivered();
        }
        std::thread::sleep(LOGGED);
        let log = fs::read_to_string(&self.nginx.log).unwrap_or_default();
        log.lines().filter_map(|l| l.parse::<u64>().ok()).sum()
    }
}

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound")
}
