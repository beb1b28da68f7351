//! Compiles the contracts in `proto/` with protox, so that no protoc has to be installed.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("proto");
    let files = ["release", "audit", "gateway", "rollout", "control"]
        .map(|n| root.join(format!("penstock/v1/{n}.proto")));
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, [root])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(
        out.join("penstock.bin"),
        prost::Message::encode_to_vec(&descriptors),
    )?;
    tonic_prost_build::configure()
        .bytes(".penstock.v1")
        .codec_path("crate::codec::SmallBuffers")
        .compile_fds(descriptors)?;
    Ok(())
}
