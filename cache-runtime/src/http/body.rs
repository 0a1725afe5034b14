//! The body of a response that passed a layer.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use pin_project_lite::pin_project;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// The body of a response that a layer wrote itself.
pub(super) type OwnBody = UnsyncBoxBody<Bytes, BoxError>;

pin_project! {
    /// The body of a response of a service behind a layer: the body `B` of the service, or the body of a rejection.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        content: Content<B>,
    }
}

pin_project! {
    #[project = ContentProjection]
    #[derive(Debug)]
    enum Content<B> {
        Service { #[pin] body: B },
        Own { #[pin] body: OwnBody },
    }
}

impl<B> ResponseBody<B> {
    pub(super) fn new(body: B) -> Self {
        let content = Content::Service { body };
        Self { content }
    }

    pub(super) fn own(body: OwnBody) -> Self {
        let content = Content::Own { body };
        Self { content }
    }
}

impl<B: Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::new(B::default())
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>>> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().content.project() {
            ContentProjection::Service { body } => body.poll_frame(cx).map_err(Into::into),
            ContentProjection::Own { body } => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Service { body } => body.is_end_stream(),
            Content::Own { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Service { body } => body.size_hint(),
            Content::Own { body } => body.size_hint(),
        }
    }
}

pub(super) fn boxed<B>(body: B) -> OwnBody
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    body.map_err(Into::into).boxed_unsync()
}
