-- utf8mb4_bin: text compares by code point, so case and accents count, as on SQLite and PostgreSQL.
CREATE TABLE users (
    id INTEGER AUTO_INCREMENT PRIMARY KEY,
    nickname VARCHAR(64) NOT NULL,
    full_name TEXT NOT NULL,
    email TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1,
    -- Stating the default keeps old servers from adding ON UPDATE. Diesel's sessions run in UTC.
    created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT users_nickname_key UNIQUE (nickname)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
