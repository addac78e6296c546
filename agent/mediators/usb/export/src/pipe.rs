//! An endpoint and what waits at it.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Duration;

use nusb::MaybeFuture;
use nusb::transfer::{Buffer, BulkOrInterrupt, Completion, EndpointDirection, TransferError};
use usbredir::packet;
use usbredir::{Body, Status};

/// Interrupt transfers kept going, so that none is missed while the last is being told.
const INTERRUPTS: usize = 2;

/// How long a transfer that was taken back may stay with the kernel, which gives it back at once unless the controller hangs.
const DRAINED_WITHIN: Duration = Duration::from_secs(1);

/// An endpoint of whatever type. Its transfers end in the order in which they were submitted.
pub(super) trait UsbEndpoint: Send {
    fn submit(&mut self, buffer: Buffer);
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Completion>;
    fn pending(&self) -> usize;
    fn cancel(&mut self);
    fn clear_halt(&mut self) -> bool;
    /// Ends every transfer that waits, and waits until the kernel has given them back: what is still with it holds its interface.
    fn drain(&mut self);
}

impl<T: BulkOrInterrupt + Send, D: EndpointDirection + Send> UsbEndpoint for nusb::Endpoint<T, D>
where
    Self: Send,
{
    fn submit(&mut self, buffer: Buffer) {
        nusb::Endpoint::submit(self, buffer);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Completion> {
        self.poll_next_complete(context)
    }

    fn pending(&self) -> usize {
        nusb::Endpoint::pending(self)
    }

    fn cancel(&mut self) {
        self.cancel_all();
    }

    fn clear_halt(&mut self) -> bool {
        nusb::Endpoint::clear_halt(self).wait().is_ok()
    }

    fn drain(&mut self) {
        self.cancel_all();
        while nusb::Endpoint::pending(self) > 0 {
            if self.wait_next_complete(DRAINED_WITHIN).is_none() {
                break;
            }
        }
    }
}

/// A transfer of the guest's that has not ended.
pub(super) struct PendingTransfer {
    pub(super) id: u64,
    pub(super) length: usize,
}

/// An endpoint and the transfers that wait at it.
pub(super) struct Pipe {
    pub(super) endpoint: Box<dyn UsbEndpoint>,
    pub(super) interface: u8,
    pub(super) interrupt: bool,
    /// Bytes of a packet.
    pub(super) packet: usize,
    pub(super) transfers: VecDeque<PendingTransfer>,
    /// Interrupt data are fetched by themselves.
    receiving: bool,
    /// Transfers that fetched them, were taken back and have not ended yet: the first ones of the endpoint.
    cancelled: usize,
    number: u64,
}

impl Pipe {
    pub(super) fn new(
        endpoint: Box<dyn UsbEndpoint>,
        interface: u8,
        interrupt: bool,
        packet: usize,
    ) -> Self {
        let transfers = VecDeque::new();
        Self {
            endpoint,
            interface,
            interrupt,
            packet,
            transfers,
            receiving: false,
            cancelled: 0,
            number: 0,
        }
    }

    /// Fetches interrupt data from now on.
    pub(super) fn start(&mut self) {
        if !std::mem::replace(&mut self.receiving, true) {
            self.fetch();
        }
    }

    /// Fetches no more. What has come by then is still told: the report of a key that was released is not for the next who asks to miss.
    pub(super) fn stop(&mut self) {
        self.receiving = false;
        self.cancel_pending();
    }

    /// Ends what waits at the endpoint, and its halt.
    pub(super) fn clear_halt(&mut self) -> bool {
        self.cancel_pending();
        self.endpoint.clear_halt()
    }

    /// Cancels the transfers that wait at the endpoint, which end soon after.
    fn cancel_pending(&mut self) {
        self.cancelled = self.endpoint.pending();
        self.endpoint.cancel();
    }

    fn fetch(&mut self) {
        // One that is cancelled ends soon; until all have, there are no others, so that there are never more than so many.
        if self.cancelled == 0 {
            for _ in self.endpoint.pending()..INTERRUPTS {
                self.endpoint.submit(Buffer::new(self.packet));
            }
        }
    }

    pub(super) fn completed(&mut self, address: u8, completion: Completion) -> Option<(u64, Body)> {
        let Completion { status: result, buffer, actual_len, .. } = completion;
        let how = result.err().map_or(Status::Success, status);
        let input = address & 0x80 != 0;
        let mut data = if input { buffer.into_vec() } else { Vec::new() };
        if self.interrupt && input {
            return self.fetched(address, how, data);
        }
        let PendingTransfer { id, length } = self.transfers.pop_front()?;
        let how = if input && data.len() > length { Status::Babble } else { how };
        data.truncate(length);
        let moved = if input { data.len() } else { actual_len };
        Some((id, ended(address, self.interrupt, how, moved, data)))
    }

    /// Handles that a transfer which fetched interrupt data has ended.
    fn fetched(&mut self, address: u8, how: Status, data: Vec<u8>) -> Option<(u64, Body)> {
        let was_cancelled = self.cancelled > 0;
        self.cancelled = self.cancelled.saturating_sub(1);
        let answer = match how {
            Status::Success => {
                self.number += 1;
                let length = data.len();
                Some((self.number, ended(address, true, how, length, data)))
            }
            // That it ends without data is what was wanted, and says nothing of those after it.
            _ if was_cancelled || !self.receiving => None,
            status => {
                self.stop();
                Some((0, Body::InterruptReceivingStatus { status, endpoint: address }))
            }
        };
        if self.receiving {
            self.fetch();
        }
        answer
    }
}

pub(super) fn boxed<T: BulkOrInterrupt + Send + 'static, D: EndpointDirection + Send + 'static>(
    interface: &nusb::Interface,
    address: u8,
) -> Option<Box<dyn UsbEndpoint>> {
    let endpoint = interface.endpoint::<T, D>(address).ok()?;
    Some(Box::new(endpoint))
}

/// Returns the end of a bulk or interrupt transfer.
pub(super) fn ended(
    endpoint: u8,
    interrupt: bool,
    status: Status,
    length: usize,
    data: Vec<u8>,
) -> Body {
    if interrupt {
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        Body::Interrupt(packet::Interrupt { endpoint, status, length, data })
    } else {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        Body::Bulk(packet::Bulk { endpoint, status, length, stream: 0, data })
    }
}

/// Returns the end of a transfer at an endpoint that is not there: of the kind that was asked for, as another is taken for the answer of a device that does not keep
/// its protocol.
pub(super) fn not_there(endpoint: u8, interrupt: bool) -> Body {
    ended(endpoint, interrupt, Status::Invalid, 0, Vec::new())
}

pub(super) fn status(error: TransferError) -> Status {
    match error {
        TransferError::Cancelled => Status::Cancelled,
        TransferError::Stall => Status::Stall,
        TransferError::Disconnected | TransferError::Fault | TransferError::Unknown(_) => {
            Status::IoError
        }
        TransferError::InvalidArgument => Status::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// The calls that a made-up endpoint has received.
    #[derive(Default)]
    struct Calls {
        submitted: usize,
        pending: usize,
        cancelled: usize,
    }

    struct Fake(Arc<Mutex<Calls>>);

    impl UsbEndpoint for Fake {
        fn submit(&mut self, _: Buffer) {
            let mut told = self.0.lock().unwrap();
            told.submitted += 1;
            told.pending += 1;
        }

        fn poll(&mut self, _: &mut Context<'_>) -> Poll<Completion> {
            Poll::Pending
        }

        fn pending(&self) -> usize {
            self.0.lock().unwrap().pending
        }

        fn cancel(&mut self) {
            self.0.lock().unwrap().cancelled += 1;
        }

        fn clear_halt(&mut self) -> bool {
            true
        }

        fn drain(&mut self) {
            self.0.lock().unwrap().pending = 0;
        }
    }

    const KEYS: u8 = 0x81;

    /// Returns the interrupt endpoint of a keypad, receiving.
    fn receiving() -> (Pipe, Arc<Mutex<Calls>>) {
        let told = Arc::new(Mutex::new(Calls::default()));
        let mut pipe = Pipe::new(Box::new(Fake(Arc::clone(&told))), 0, true, 8);
        pipe.start();
        pipe.start();
        assert_eq!(told.lock().unwrap().pending, INTERRUPTS);
        (pipe, told)
    }

    fn ends(pipe: &mut Pipe, told: &Mutex<Calls>, how: Result<u8, TransferError>) -> Option<Body> {
        told.lock().unwrap().pending -= 1;
        let mut buffer = Buffer::new(8);
        buffer.extend_from_slice(how.ok().as_slice());
        let (actual_len, status) = (buffer.len(), how.map(|_| ()));
        pipe.completed(KEYS, Completion { buffer, actual_len, status }).map(|(_, body)| body)
    }

    fn report(key: u8) -> Option<Body> {
        Some(ended(KEYS, true, Status::Success, 1, vec![key]))
    }

    #[test]
    fn a_report_that_came_before_the_endpoint_was_stopped_is_told() {
        let (mut pipe, told) = receiving();
        pipe.stop();
        assert_eq!(ends(&mut pipe, &told, Ok(7)), report(7));
        assert_eq!(ends(&mut pipe, &told, Err(TransferError::Cancelled)), None);
        let told = told.lock().unwrap();
        assert_eq!((told.submitted, told.pending, told.cancelled), (INTERRUPTS, 0, 1));
    }

    #[test]
    fn what_was_taken_back_is_no_answer_to_who_starts_again() {
        for again in [Pipe::stop, |pipe: &mut Pipe| assert!(pipe.clear_halt())] {
            let (mut pipe, told) = receiving();
            again(&mut pipe);
            pipe.start();
            assert_eq!(told.lock().unwrap().pending, INTERRUPTS, "no more than before at a time");
            for _ in 0..INTERRUPTS {
                assert_eq!(ends(&mut pipe, &told, Err(TransferError::Cancelled)), None);
            }
            assert_eq!(told.lock().unwrap().pending, INTERRUPTS, "fetched anew");
            assert_eq!(ends(&mut pipe, &told, Ok(9)), report(9));
            assert_eq!(told.lock().unwrap().pending, INTERRUPTS);
        }
    }

    #[test]
    fn a_transfer_at_an_endpoint_that_is_not_there_is_answered_as_what_it_was() {
        let is_invalid = |body| match body {
            Body::Interrupt(packet) => (true, packet.endpoint, packet.status == Status::Invalid),
            Body::Bulk(packet) => (false, packet.endpoint, packet.status == Status::Invalid),
            other => panic!("{other:?}"),
        };
        assert_eq!(is_invalid(not_there(0x02, true)), (true, 0x02, true));
        assert_eq!(is_invalid(not_there(0x81, false)), (false, 0x81, true));
    }

    #[test]
    fn an_endpoint_that_fails_says_so_once_and_can_be_started_again() {
        let (mut pipe, told) = receiving();
        let stall = Body::InterruptReceivingStatus { status: Status::Stall, endpoint: KEYS };
        assert_eq!(ends(&mut pipe, &told, Err(TransferError::Stall)), Some(stall));
        pipe.start();
        assert_eq!(ends(&mut pipe, &told, Err(TransferError::Stall)), None, "of before");
        assert_eq!(ends(&mut pipe, &told, Ok(3)), report(3));
    }
}
