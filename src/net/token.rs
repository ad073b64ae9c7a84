//! Tokens that go through the kernel and come back with an event: they name its socket, listener or bell.

/// A socket of one ring. Indices are used again, generations tell the uses apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketKey {
    pub(super) index: u32,
    /// 24 bits.
    pub(super) generation: u32,
}

pub(super) const GENERATION_MASK: u32 = (1 << 24) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Receive(SocketKey),
    Send(SocketKey),
    /// The listener's index.
    Accept(u32),
    Bell,
    /// A request to cancel; what it says is of no interest, the cancelled operation has its own completion.
    Cancel,
}

const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const ACCEPT: u64 = 3;
const BELL: u64 = 4;
const CANCEL: u64 = 5;

impl Token {
    /// 8 bits of kind, 24 of generation, 32 of index.
    pub(super) fn to_user_data(self) -> u64 {
        let (kind, generation, index) = match self {
            Token::Receive(key) => (RECEIVE, key.generation, key.index),
            Token::Send(key) => (SEND, key.generation, key.index),
            Token::Accept(listener) => (ACCEPT, 0, listener),
            Token::Bell => (BELL, 0, 0),
            Token::Cancel => (CANCEL, 0, 0),
        };
        kind << 56 | u64::from(generation) << 32 | u64::from(index)
    }

    pub(super) fn from_user_data(user_data: u64) -> Token {
        let index = user_data as u32;
        let key = SocketKey { index, generation: (user_data >> 32) as u32 & GENERATION_MASK };
        match user_data >> 56 {
            RECEIVE => Token::Receive(key),
            SEND => Token::Send(key),
            ACCEPT => Token::Accept(index),
            BELL => Token::Bell,
            CANCEL => Token::Cancel,
            kind => unreachable!("no operation of kind {kind} is ever submitted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_way_through_the_kernel() {
        let keys = [(0, 0), (1, 0), (0, 1), (u32::MAX, GENERATION_MASK), (77, 0x00ab_cdef)];
        for (index, generation) in keys {
            let key = SocketKey { index, generation };
            for token in [Token::Receive(key), Token::Send(key), Token::Accept(index)] {
                assert_eq!(Token::from_user_data(token.to_user_data()), token);
            }
        }
        for token in [Token::Bell, Token::Cancel] {
            assert_eq!(Token::from_user_data(token.to_user_data()), token);
        }
    }
}
