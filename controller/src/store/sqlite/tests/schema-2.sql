-- A file as the version with schema 2 left it. Never changed.
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE store (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch TEXT NOT NULL,
    revision INTEGER NOT NULL CHECK (revision >= 0),
    compacted INTEGER NOT NULL CHECK (compacted BETWEEN 0 AND revision)
) STRICT;
CREATE TABLE record (
    key TEXT NOT NULL PRIMARY KEY,
    revision INTEGER NOT NULL CHECK (revision > 0),
    value BLOB NOT NULL
) STRICT;
CREATE TABLE history (
    revision INTEGER NOT NULL CHECK (revision > 0),
    key TEXT NOT NULL,
    deleted INTEGER NOT NULL CHECK (deleted IN (0, 1)),
    value BLOB NOT NULL,
    PRIMARY KEY (revision, key)
) STRICT;
CREATE TABLE chunk (
    digest BLOB NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    put INTEGER NOT NULL,
    bytes BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX history_of_key ON history (key, revision);
INSERT INTO store VALUES (1, '0123456789abcdef0123456789abcdef', 4, 0);
INSERT INTO record VALUES ('group/all', 2, x'');
INSERT INTO record VALUES ('policy/web', 3, x'7b2276657273696f6e223a327d');
INSERT INTO history VALUES (1, 'policy/old', 0, x'6f6c64');
INSERT INTO history VALUES (1, 'policy/web', 0, x'7b2276657273696f6e223a317d');
INSERT INTO history VALUES (2, 'group/all', 0, x'');
INSERT INTO history VALUES (3, 'policy/web', 0, x'7b2276657273696f6e223a327d');
INSERT INTO history VALUES (4, 'policy/old', 1, x'');
INSERT INTO chunk VALUES (x'cc986e181a1c5f0a0d0ecd017532f8ab979f53502d59d24c84e6f6b0af4d902a', 1700000000, x'6f6e65206368756e6b');
INSERT INTO chunk VALUES (x'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855', 1700000000, x'');
INSERT INTO chunk VALUES (x'2c8d07cd986f58eb210bd800133d6645c7340c59865377c8ea431cebca0b3113', 1700000000, x'00ff00');
PRAGMA user_version = 2;
COMMIT;
