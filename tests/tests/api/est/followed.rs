//! The runbook's page for a device that enrols by itself, followed to the letter.

use crate::lost::Shell;
use crate::world::{built, document, people, release};

use super::Est;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_the_page_a_device_enrols_by_itself_has_a_device_with_a_certificate_that_renews() {
    let est = Est::without_release().await;
    let mut people = people(&est.world).await;
    let text = document(2, 99).replace("hmi", "scada");
    release(&mut people, &built(&text, 1, None, "anna")).await;
    let mut shell = Shell::new(&est.world, "A device enrols by itself").await;
    // `curl` finds the coordinator where the page says that it is.
    let at = est.world.running.as_ref().unwrap().est[0];
    let elsewhere = format!("connect-to = \"coordinator.example:7644:{at}\"\n");
    let home = shell.person.home.clone();
    for name in [".curlrc", "curlrc"] {
        std::fs::write(home.join(name), &elsewhere).unwrap();
    }

    let said = shell
        .types_and_the_second_confirms("penstock devices token ")
        .await;
    assert!(said.contains("user scada"), "{said}");
    shell.types("penstock devices authority ").await;
    shell.types("openssl req ").await;
    shell.types("openssl base64 -in ").await;
    shell.types("curl ").await;
    shell.types("openssl base64 -d ").await;
    let verify = ["verify", "-CAfile", "ca.pem", "scada.pem"];
    super::done(home.as_ref(), "openssl", &verify).await;
    let key = [
        "pkey",
        "-in",
        "device.key",
        "-pubout",
        "-outform",
        "DER",
        "-out",
        "key.der",
    ];
    super::done(home.as_ref(), "openssl", &key).await;
    let key = penstock_policy::ids::Digest::of(&std::fs::read(home.join("key.der")).unwrap());
    let said = shell.types("penstock audit search ").await;
    assert!(
        said.contains(&format!(
            "device/scada was enrolled from 127.0.0.1: by EST, life 1, key {key}"
        )),
        "{said}"
    );
    let said = shell.types("penstock devices list").await;
    assert!(said.contains("scada"), "{said}");
    std::fs::remove_file(home.join("scada.p7")).unwrap();
    shell.types("curl ").await;
    assert!(home.join("scada.p7").exists());
    shell.ends_here();
}
