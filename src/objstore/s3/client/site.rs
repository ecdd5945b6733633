//! What an endpoint's name tells: whose store it is, which region, and how a bucket is addressed there.

use url::Url;

use crate::objstore::config::{Lookup, S3Config};

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) host: Host,
    /// Signed for; `None`: to be found out.
    pub(super) region: Option<String>,
    /// The bucket is named in the path, not in the host name.
    pub(super) path_style: bool,
}

/// How the host of a request is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// AWS by TLS: the SDK makes the name from the region.
    Aws { dualstack: bool },
    /// AWS without TLS: as above, but the SDK would not.
    AwsPlain { dualstack: bool },
    /// This URL.
    Fixed(String),
}

impl Site {
    pub(super) fn of(config: &S3Config) -> Self {
        let scheme = if config.insecure { "http" } else { "https" };
        let url = format!("{scheme}://{}", config.endpoint);
        let parsed = Url::parse(&url).ok();
        let name = parsed
            .as_ref()
            .and_then(Url::host_str)
            .unwrap_or_default()
            .to_ascii_lowercase();
        let aws = aws(&name);
        let google = name == "storage.googleapis.com";
        let usual_port = parsed.is_some_and(|url| url.port().is_none());
        let host = match &aws {
            Some(Aws {
                dualstack,
                fixed: false,
                ..
            }) if usual_port => {
                let dualstack = *dualstack && config.dualstack;
                if config.insecure {
                    Host::AwsPlain { dualstack }
                } else {
                    Host::Aws { dualstack }
                }
            }
            _ => Host::Fixed(url),
        };
        let in_host = aws.is_some() || google || name.ends_with(".aliyuncs.com");
        // No wildcard certificate covers two labels.
        let dotted = !config.insecure && config.bucket.contains('.');
        let path_style = match config.lookup {
            Lookup::Path => true,
            Lookup::VirtualHosted => false,
            Lookup::Auto => !in_host || dotted,
        };
        let named = aws
            .and_then(|aws| aws.region)
            .or_else(|| google.then(|| "auto".to_owned()));
        Self {
            host,
            region: config.region.clone().or(named),
            path_style,
        }
    }
}

/// A host of Amazon's.
#[derive(Debug, PartialEq, Eq)]
struct Aws {
    region: Option<String>,
    /// It has dual-stack names.
    dualstack: bool,
    /// The name says more than the region (a private link, FIPS, a load balancer) and must be kept.
    fixed: bool,
}

fn aws(name: &str) -> Option<Aws> {
    let labels = name
        .strip_suffix(".amazonaws.com")
        .or_else(|| name.strip_suffix(".amazonaws.com.cn"))?;
    let labels: Vec<&str> = labels.split('.').collect();
    let kept = |region: Option<&str>| {
        Some(Aws {
            region: region.map(str::to_owned),
            dualstack: false,
            fixed: true,
        })
    };
    let regional = |region: Option<&str>| {
        Some(Aws {
            region: region.map(str::to_owned),
            dualstack: true,
            fixed: false,
        })
    };
    match labels.as_slice() {
        ["s3" | "s3-external-1"] => regional(None),
        ["s3-accelerate", ..] => kept(None),
        ["s3-fips", "dualstack", region] | ["s3-fips", region] => kept(Some(region)),
        ["s3", "dualstack", region] | ["s3", region] => regional(Some(region)),
        [express, region] if express.starts_with("s3express-") => Some(Aws {
            region: Some((*region).to_owned()),
            dualstack: false,
            fixed: false,
        }),
        [.., "s3", region, "vpce"] | [.., "elb", region] => kept(Some(region)),
        [joined] => match joined.strip_prefix("s3-fips-") {
            Some(region) => kept(Some(region)),
            None => joined
                .strip_prefix("s3-")
                .map_or_else(|| kept(None), |region| regional(Some(region))),
        },
        _ => kept(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_amazon_tell_their_region() {
        let regional = |region: Option<&str>| Aws {
            region: region.map(Into::into),
            dualstack: true,
            fixed: false,
        };
        let kept = |region: Option<&str>| Aws {
            region: region.map(Into::into),
            dualstack: false,
            fixed: true,
        };
        for (name, expected) in [
            ("s3.amazonaws.com", regional(None)),
            ("s3-external-1.amazonaws.com", regional(None)),
            ("s3.eu-west-1.amazonaws.com", regional(Some("eu-west-1"))),
            ("s3-eu-west-1.amazonaws.com", regional(Some("eu-west-1"))),
            ("s3.dualstack.eu-west-1.amazonaws.com", regional(Some("eu-west-1"))),
            ("s3.cn-north-1.amazonaws.com.cn", regional(Some("cn-north-1"))),
            ("s3.dualstack.cn-north-1.amazonaws.com.cn", regional(Some("cn-north-1"))),
            ("s3-fips.us-gov-west-1.amazonaws.com", kept(Some("us-gov-west-1"))),
            ("s3-fips.dualstack.us-east-2.amazonaws.com", kept(Some("us-east-2"))),
            ("s3-fips-us-gov-west-1.amazonaws.com", kept(Some("us-gov-west-1"))),
            (
                "bucket.vpce-1a2b-3c.s3.us-east-1.vpce.amazonaws.com",
                kept(Some("us-east-1")),
            ),
            ("s3-internal.elb.eu-central-1.amazonaws.com", kept(Some("eu-central-1"))),
            ("s3-accelerate.amazonaws.com", kept(None)),
        ] {
            assert_eq!(aws(name), Some(expected), "{name}");
        }
        let express = aws("s3express-use1-az4.us-east-1.amazonaws.com");
        assert_eq!(
            express,
            Some(Aws {
                region: Some("us-east-1".into()),
                dualstack: false,
                fixed: false
            })
        );
        for name in [
            "minio.example.com",
            "amazonaws.com",
            "s3.amazonaws.com.example.com",
            "127.0.0.1",
        ] {
            assert_eq!(aws(name), None, "{name}");
        }
    }
}
