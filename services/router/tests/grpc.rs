//! The router's own gRPC listener.

use equipoise_proto::v1;
use equipoise_proto::v1::feedback_service_client::FeedbackServiceClient;
use equipoise_proto::v1::give_feedback_request::Outcome;
use equipoise_router::{PredictorSource, RouterConfig, start};
use tonic::transport::Endpoint;

#[tokio::test]
async fn feedback_that_cannot_be_taken_says_why() {
    let any = "127.0.0.1:0".parse().expect("an address");
    // Nobody is there: a router serves without its control plane.
    let mut config = RouterConfig::new("router-a", any, "http://127.0.0.1:9");
    config.predictor = PredictorSource::Off;
    config.grpc_listen = Some(any);
    let router = start(config).await.expect("starts");
    let url = format!("http://{}", router.grpc_addr().expect("listens"));
    let channel = Endpoint::from_shared(url)
        .expect("a URL")
        .connect()
        .await
        .expect("answers");
    let mut client = FeedbackServiceClient::new(channel);
    for (decision, outcome, code, reason) in [
        (
            "router-a-0",
            Some(Outcome::Passed(true)),
            tonic::Code::NotFound,
            "router-a",
        ),
        (
            "router-b-0",
            Some(Outcome::Score(1.0)),
            tonic::Code::NotFound,
            "another router's",
        ),
        (
            "router-a-0",
            Some(Outcome::Score(1.5)),
            tonic::Code::InvalidArgument,
            "from 0 to 1",
        ),
        ("router-a-0", None, tonic::Code::InvalidArgument, "passed"),
    ] {
        let request = v1::GiveFeedbackRequest {
            decision_id: decision.to_owned(),
            outcome,
        };
        let status = client.give(request).await.expect_err("is refused");
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(reason), "{status}");
    }
    router.shutdown().await;
}
