//! A real Chromium without a window, driven through its ChromeDriver, which speaks WebDriver (<https://www.w3.org/TR/webdriver2/>).

use std::{path::PathBuf, process::Command, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use fs_err as fs;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    http,
    process::{Process, free_port},
    tools::{Tools, target_dir, temp_dir},
    wait::try_until,
};

/// A browser with one page; killed when dropped.
#[derive(Debug)]
pub(crate) struct Browser {
    session: String,
    driver: Process,
    dir: TempDir,
}

impl Browser {
    /// Starts one.
    pub(crate) async fn start() -> Browser {
        let (chromium, driver) = Tools::chromium();
        let (dir, port) = (temp_dir("browser"), free_port());
        let mut command = Command::new(driver);
        command.arg(format!("--port={port}")).env("HOME", dir.path());
        let driver = Process::spawn("chromedriver", &mut command, &dir.path().join("log"), Some(dir.path()));
        let url = format!("http://127.0.0.1:{port}");
        let serving = try_until(Duration::from_secs(60), async || {
            http::ok(&format!("{url}/status")).await.then_some(())
        });
        assert!(
            serving.await.is_some(),
            "chromedriver did not start; its log:\n{}",
            driver.log_tail()
        );
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            // It ends with its driver, also when that is killed.
            "--remote-debugging-pipe",
        ];
        let options = json!({
            "binary": chromium,
            "args": args.map(str::to_owned).into_iter()
                .chain([format!("--user-data-dir={}", dir.path().join("profile").display())]).collect::<Vec<_>>(),
        });
        let capabilities = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}});
        let started = post(&format!("{url}/session"), &capabilities).await;
        let id = started["sessionId"].as_str();
        let id = id.unwrap_or_else(|| panic!("no session: {started}; the log:\n{}", driver.log_tail()));
        let session = format!("{url}/session/{id}");
        Browser { session, driver, dir }
    }

    /// How wide the window is, in points, and whether its reader likes it dark.
    pub(crate) async fn set_view(&self, width: u32, dark: bool) {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600});
        self.command("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.command("Emulation.setEmulatedMedia", media).await;
    }

    /// Loads a page and waits until it is there.
    pub(crate) async fn open(&self, url: &str) {
        self.send("url", json!({ "url": url })).await;
    }

    /// What the body of a function gives that runs in the page.
    pub(crate) async fn evaluate(&self, script: &str) -> Value {
        self.send("execute/sync", json!({"script": script, "args": []})).await
    }

    /// Saves a picture of the whole page as `target/screenshots/<name>.png`, for whoever wants to look.
    pub(crate) async fn picture(&self, name: &str) -> PathBuf {
        let wanted = json!({"cmd": "Page.captureScreenshot", "params": {"captureBeyondViewport": true}});
        let url = format!("{}/goog/cdp/execute", self.session);
        // A page that was loaded a moment ago may not be shown yet, and then it refuses.
        let taken = try_until(Duration::from_secs(60), async || {
            Some(post(&url, &wanted).await["data"].as_str()?.to_owned())
        });
        let taken = taken.await;
        let taken = taken.unwrap_or_else(|| panic!("no picture of {name}; the log:\n{}", self.driver.log_tail()));
        let bytes = STANDARD.decode(taken).expect("base64");
        let dir = target_dir().join("screenshots");
        fs::create_dir_all(&dir).expect("the target directory can be written");
        let path = dir.join(format!("{name}.png"));
        fs::write(&path, bytes).expect("the target directory can be written");
        path
    }

    /// A command of the browser's own protocol.
    async fn command(&self, command: &str, params: Value) -> Value {
        self.send("goog/cdp/execute", json!({"cmd": command, "params": params}))
            .await
    }

    async fn send(&self, what: &str, body: Value) -> Value {
        let answer = post(&format!("{}/{what}", self.session), &body).await;
        assert!(answer["error"].is_null(), "{what} {body}: {answer}");
        answer
    }
}

/// The `value` of the answer.
async fn post(url: &str, body: &Value) -> Value {
    let request = http::client().post(url).body(body.to_string());
    let response = request.send().await.unwrap_or_else(|error| panic!("{url}: {error}"));
    let text = response.text().await.unwrap_or_else(|error| panic!("{url}: {error}"));
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{url}: {error}: {text}"));
    answer["value"].clone()
}
