//! The binary's entry point is our own where there is one (src/sys/start.rs), and what the runtime's verbs run lies
//! together (src/sys/order.ld, which hack/order makes).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |what: &str| std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if target("ARCH") == "x86_64" && target("ENV") == "gnu" {
        println!("cargo::rustc-link-arg-bins=-Wl,-e,orlop_start");
        let order = std::path::absolute("src/sys/order.ld").unwrap_or_default();
        println!("cargo::rerun-if-changed={}", order.display());
        if std::env::var("PROFILE").is_ok_and(|p| p == "release") {
            println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", order.display());
        }
    }
}
