//! An endpoint and what waits at it.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use nusb::MaybeFuture;
use nusb::transfer::{Buffer, BulkOrInterrupt, Completion, EndpointDirection, TransferError};
use usbredir::packet;
use usbredir::{Body, Status};

/// An endpoint of whatever type.
pub(super) trait Line: Send {
    fn submit(&mut self, buffer: Buffer);
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Completion>;
    fn pending(&self) -> usize;
    fn cancel(&mut self);
    fn clear_halt(&mut self) -> bool;
}

impl<T: BulkOrInterrupt + Send, D: EndpointDirection + Send> Line for nusb::Endpoint<T, D>
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
}

pub(super) struct Asked {
    pub(super) id: u64,
    pub(super) length: usize,
}

pub(super) struct Pipe {
    pub(super) line: Box<dyn Line>,
    pub(super) interface: u8,
    pub(super) interrupt: bool,
    /// Bytes of a packet.
    pub(super) packet: usize,
    pub(super) asked: VecDeque<Asked>,
    /// Interrupt data are fetched by themselves.
    pub(super) receiving: bool,
    pub(super) number: u64,
}

impl Pipe {
    pub(super) fn completed(&mut self, address: u8, completion: Completion) -> Option<(u64, Body)> {
        let Completion { status: result, buffer, actual_len, .. } = completion;
        let how = result.err().map_or(Status::Success, status);
        let input = address & 0x80 != 0;
        let mut data = if input { buffer.into_vec() } else { Vec::new() };
        if self.interrupt && input {
            if !self.receiving {
                return None;
            }
            if how != Status::Success {
                self.receiving = false;
                let (status, endpoint) = (how, address);
                return Some((0, Body::InterruptReceivingStatus { status, endpoint }));
            }
            self.line.submit(Buffer::new(self.packet));
            self.number += 1;
            let length = data.len();
            return Some((self.number, ended(address, true, how, length, data)));
        }
        let Asked { id, length } = self.asked.pop_front()?;
        let how = if input && data.len() > length { Status::Babble } else { how };
        data.truncate(length);
        let moved = if input { data.len() } else { actual_len };
        Some((id, ended(address, self.interrupt, how, moved, data)))
    }
}

pub(super) fn boxed<T: BulkOrInterrupt + Send + 'static, D: EndpointDirection + Send + 'static>(
    interface: &nusb::Interface,
    address: u8,
) -> Option<Box<dyn Line>> {
    let endpoint = interface.endpoint::<T, D>(address).ok()?;
    Some(Box::new(endpoint))
}

/// The end of a bulk or interrupt transfer.
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
