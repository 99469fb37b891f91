"""Everything Rainhill raises on purpose.

RainhillError                 one clear line (a table's problems: one line each), exit code 2
├── ConfigError               a recipe or site file: names file, key and both values
│   └── PluginError           no such strategy, task, model or command; offers the nearest
├── DataError                 a site's own data: names file, row and value
├── BaseModelError            base weights missing, or not the ones that were pinned
├── CredentialError           a key, certificate, request or bundle that does not hold: names it and what was expected
├── ProtocolError             a message that breaks the wire form: names tensor, got and expected
├── RefusedError              a site or a rule says no: names what was asked and what is allowed
├── QuorumError               too few sites answered a round
├── LedgerError               a site's privacy ledger or journal was changed, or cannot be read or written: names entry, got and expected
├── AccountingError           an epsilon that cannot be claimed: two accountants disagree, or a value none is made for
├── TrainerError              the process that trains at a site ended, again and again
├── MergeError                what the sites sent merged into something that is not a number
├── CheckpointError           a checkpoint cannot be read, or is of another run
│   └── UnwrittenError        it cannot be written: where there is room again, the round is done again
├── DatabaseError             the coordinator's database: cannot be reached, or its tables are of another version
└── RehearsalError            a command of a rehearsal failed: names it, and what it said
"""


class RainhillError(Exception):
    """Base of the tree. Its text is meant for a person."""


class ConfigError(RainhillError):
    pass


class PluginError(ConfigError):
    pass


class DataError(RainhillError):
    pass


class BaseModelError(RainhillError):
    pass


class CredentialError(RainhillError):
    pass


class ProtocolError(RainhillError):
    pass


class RefusedError(RainhillError):
    pass


class QuorumError(RainhillError):
    pass


class LedgerError(RainhillError):
    pass


class AccountingError(RainhillError):
    pass


class TrainerError(RainhillError):
    pass


class MergeError(RainhillError):
    pass


class CheckpointError(RainhillError):
    pass


class UnwrittenError(CheckpointError):
    pass


class DatabaseError(RainhillError):
    pass


class RehearsalError(RainhillError):
    pass
