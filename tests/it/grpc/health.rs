//! Health follows readiness; reflection tells the services.

use narthex::pb::health::{
    HealthCheckRequest, HealthListRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use prost::Message as _;
use tonic::{Code, Streaming, transport::Channel};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, ServerReflectionResponse, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};

use super::{Rig, client::body};

fn named(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

async fn check(client: &mut HealthClient<Channel>) -> ServingStatus {
    client.check(named("")).await.unwrap().get_ref().status()
}

async fn told(watch: &mut Streaming<narthex::pb::health::HealthCheckResponse>) -> Option<ServingStatus> {
    watch.message().await.unwrap().map(|answer| answer.status())
}

#[tokio::test]
async fn health_follows_readiness() {
    use ServingStatus::{NotServing, ServiceUnknown, Serving};
    let rig = Rig::plain().await;
    let mut client = HealthClient::new(rig.channel().await);
    let mut watch = client.watch(named("")).await.unwrap().into_inner();
    let mut unknown = client.watch(named("thanos.Store")).await.unwrap().into_inner();
    assert_eq!(told(&mut unknown).await, Some(ServiceUnknown));
    assert_eq!(told(&mut watch).await, Some(NotServing));
    assert_eq!(check(&mut client).await, NotServing);

    let prometheus = rig.probe.condition("prometheus");
    prometheus.set(Ok(()));
    assert_eq!(told(&mut watch).await, Some(Serving));
    assert_eq!(check(&mut client).await, Serving);
    let list = client.list(HealthListRequest {}).await.unwrap().into_inner().statuses;
    let list: Vec<_> = list
        .iter()
        .map(|(name, answer)| (name.as_str(), answer.status()))
        .collect();
    assert_eq!(list, [("", Serving)]);

    prometheus.set(Err("refused".to_owned()));
    prometheus.set(Err("refused again".to_owned()));
    prometheus.set(Ok(()));
    prometheus.set(Err("refused".to_owned()));
    assert_eq!(told(&mut watch).await, Some(NotServing));
    assert_eq!(check(&mut client).await, NotServing);
    let missing = client.check(named("thanos.Store")).await.unwrap_err();
    assert_eq!((missing.code(), missing.message()), (Code::NotFound, "unknown service"));

    prometheus.set(Ok(()));
    assert_eq!(told(&mut watch).await, Some(Serving));
    rig.probe.shutdown();
    assert_eq!(told(&mut watch).await, Some(NotServing));
    assert_eq!(told(&mut watch).await, None, "no watch holds up the end");
    assert_eq!(told(&mut unknown).await, None);
    assert_eq!(check(&mut client).await, NotServing);
    rig.stop().await;
}

#[tokio::test]
async fn reflection_lists_the_services_and_knows_their_messages() {
    let rig = Rig::plain().await;
    let mut raw = rig.raw().await;
    for version in ["v1", "v1alpha"] {
        // Both versions are the same on the wire.
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let mut ask = async |what: MessageRequest| {
            let request = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(what),
            };
            let answer = raw.call(&path, &[], body(&request)).await;
            assert_eq!(answer.code(), 0);
            let (_, message) = answer.messages().pop().unwrap();
            ServerReflectionResponse::decode(&message[..])
                .unwrap()
                .message_response
                .unwrap()
        };
        let MessageResponse::ListServicesResponse(list) = ask(MessageRequest::ListServices(String::new())).await else {
            panic!("no list");
        };
        let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
        names.sort();
        assert_eq!(
            names,
            [
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
                "thanos.Exemplars",
                "thanos.Metadata",
                "thanos.Rules",
                "thanos.Status",
                "thanos.Store",
                "thanos.Targets",
                "thanos.info.Info",
            ]
        );
        let symbol = MessageRequest::FileContainingSymbol("thanos.SeriesRequest".to_owned());
        let MessageResponse::FileDescriptorResponse(file) = ask(symbol).await else {
            panic!("no file");
        };
        assert!(!file.file_descriptor_proto.is_empty());
    }
    rig.stop().await;
}
