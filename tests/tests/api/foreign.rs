//! The API by a client that others wrote: Python's grpcio, which knows nothing of Penstock but the names of its methods.
//!
//! What integrators write against the API is such a program. It verifies the coordinator by its address, as TLS clients do, and has to
//! read from a refusal why it is refused.

use std::path::{Path, PathBuf};

use penstock_proto::keys::{FileKey, Key};
use penstock_proto::peer::Epoch;
use penstock_proto::tls::{Credentials, certificates_to_pem};
use penstock_proto::v1;
use prost::Message as _;
use tokio::process::Command;

use super::world::{PATIENCE, World, now_ms};

/// Calls a method that is asked for nothing, and writes the answer's bytes, or fails with the status.
const CALL: &str = r#"
import sys, grpc
address, root, method, own = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
read = lambda name: open(name, "rb").read()
chain, key = (read(own[0]), read(own[1])) if own else (None, None)
credentials = grpc.ssl_channel_credentials(read(root), key, chain)
with grpc.secure_channel(address, credentials) as channel:
    call = channel.unary_unary("/penstock.v1.Control/" + method)
    try:
        sys.stdout.buffer.write(call(b"", timeout=30))
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name} {error.details()}")
"#;

/// What a Python program holds: files in PEM.
struct Files {
    chain: PathBuf,
    key: PathBuf,
}

/// Writes a key and its certificates where a Python program finds them.
fn files(folder: &Path, name: &str, key: &FileKey, credentials: &Credentials) -> Files {
    let files = Files {
        chain: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
    };
    std::fs::write(&files.chain, certificates_to_pem(credentials.chain())).unwrap();
    key.create(&files.key).unwrap();
    files
}

/// A key in a file, and the same to sign with.
fn file_key() -> (FileKey, Key) {
    let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let key = || FileKey::from_pem(pem.as_bytes(), "a new key").unwrap();
    (key(), key().into())
}

/// The answer that the program gets, or the status that it reads.
async fn calls(world: &World, method: &str, own: Option<&Files>) -> Result<Vec<u8>, String> {
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers/bin/python");
    let mut command = Command::new(python);
    let root = world.config.data.join("ca/root.pem");
    command.args([
        "-c",
        CALL,
        &world.address.to_string(),
        root.to_str().unwrap(),
        method,
    ]);
    if let Some(own) = own {
        command.args([&own.chain, &own.key]);
    }
    let output = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output())
        .await
        .expect("it ends")
        .unwrap();
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_program_calls_as_the_operator_of_its_certificate_and_reads_why_it_is_refused() {
    let world = World::start().await;
    let (stored, key) = file_key();
    let secret = world
        .token(
            v1::create_token_request::Subject::Operator("historian".to_owned()),
            v1::Role::Viewer,
        )
        .await;
    let credentials = world.enrol_key("historian", &secret, &key).await.unwrap();
    let own = files(world.dir.path(), "historian", &stored, &credentials);

    let answer = calls(&world, "WhoAmI", Some(&own)).await.unwrap();
    let answer = v1::WhoAmIResponse::decode(&*answer).unwrap();
    assert_eq!(
        (answer.operator.as_str(), answer.role()),
        ("historian", v1::Role::Viewer)
    );

    // A gateway's certificate is a good one, and no operator's.
    let (stored, key) = file_key();
    let gateway = world.issued("gateway/gw-1", Epoch::default(), key, now_ms());
    let gateway = files(world.dir.path(), "gateway", &stored, &gateway);
    for (method, own, status, named) in [
        ("ListOperators", Some(&own), "PERMISSION_DENIED", "admin"),
        ("NoSuchMethod", Some(&own), "UNIMPLEMENTED", ""),
        ("WhoAmI", None, "UNAUTHENTICATED", "certificate"),
        ("WhoAmI", Some(&gateway), "PERMISSION_DENIED", "operator"),
    ] {
        let read = calls(&world, method, own).await.unwrap_err();
        assert!(
            read.starts_with(status) && read.contains(named),
            "{method}: {read}"
        );
    }

    let revoke = v1::ChangeStandingRequest {
        subject: "operator/historian".to_owned(),
        change: v1::StandingChange::Revoke.into(),
        reason: "the server was replaced".to_owned(),
        ticket: String::new(),
    };
    world.admin().change_standing(revoke).await.unwrap();
    let read = calls(&world, "WhoAmI", Some(&own)).await.unwrap_err();
    assert!(read.contains("revoked"), "{read}");
}
