-- A version says whose code may go on working on it; and the board of the run flow counts the side effects of a day by an index.

-- part: engine

alter table engine.schema_version add works_with int;
update engine.schema_version set works_with = version;
alter table engine.schema_version alter works_with set not null;
insert into engine.schema_version (version, works_with) values (2, 1);

-- part: app

create index concurrently if not exists mock_receipts_by_time on app.mock_receipts using brin (created_at);
