//! A server that reads requests and answers each with two bytes: what is left then is the cost of the
//! client and of the network, the ceiling for any server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

/// A collection as a server describes it.
const COLLECTION: &str = r#"{"id":"00000000-0000-4000-8000-000000000000","name":"bench","configuration_json":{},
"schema":null,"metadata":null,"dimension":null,"tenant":"default_tenant","database":"default_database","version":0,
"log_position":0}"#;

/// As Chroma's clients need it: what they ask before they send records, and the shortest answer else.
fn answer(path: &str) -> &'static str {
    match path {
        "/api/v2/pre-flight-checks" => r#"{"max_batch_size":5461,"supports_base64_encoding":true}"#,
        "/api/v2/auth/identity" => r#"{"user_id":"","tenant":"default_tenant","databases":["default_database"]}"#,
        "/api/v2/tenants/default_tenant" => r#"{"name":"default_tenant"}"#,
        "/api/v2/tenants/default_tenant/databases/default_database" => {
            r#"{"id":"00000000-0000-4000-8000-000000000001","name":"default_database","tenant":"default_tenant"}"#
        }
        "/api/v2/tenants/default_tenant/databases/default_database/collections" => COLLECTION,
        _ => "{}",
    }
}

fn serve(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let mut body = Vec::new();
    loop {
        let (mut line, mut length, mut path) = (String::new(), 0, String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let text = line.trim_end().to_ascii_lowercase();
            if text.is_empty() {
                break;
            }
            if path.is_empty() {
                path = text.split(' ').nth(1).unwrap_or_default().to_owned();
            } else if let Some(number) = text.strip_prefix("content-length:") {
                length = number.trim().parse().unwrap_or(0);
            }
        }
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
        let answer = answer(&path);
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", answer.len());
        let mut stream = stream;
        stream.write_all(format!("{head}{answer}").as_bytes())?;
    }
}

fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(0);
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?.port())?;
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || serve(&stream));
    }
    Ok(())
}
