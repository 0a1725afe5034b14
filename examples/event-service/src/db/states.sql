-- An event has a state, which is the part of a country that it is in, and a type. An event of an earlier version gets the state of its
-- location, or else its location as the state, and the type that its title begins with, or else `meetup`.
--
-- SQLite adds such a column only with a default. The service always writes both.
ALTER TABLE events ADD COLUMN state TEXT NOT NULL DEFAULT '';
ALTER TABLE events ADD COLUMN type TEXT NOT NULL DEFAULT 'meetup'
    CHECK (type IN ('concert', 'meetup', 'workshop', 'reading', 'exhibition', 'festival', 'conference'));

WITH
    places (location, state) AS (VALUES
        ('Amsterdam', 'North Holland'), ('Berlin', 'Berlin'), ('Cape Town', 'Western Cape'), ('Dakar', 'Dakar'),
        ('Edinburgh', 'Scotland'), ('Florence', 'Tuscany'), ('Geneva', 'Geneva'), ('Hamburg', 'Hamburg'),
        ('Istanbul', 'Istanbul'), ('Jakarta', 'Jakarta'), ('Kyoto', 'Kyoto'), ('Lagos', 'Lagos'), ('Madrid', 'Madrid'),
        ('New York', 'New York'), ('Oslo', 'Oslo'), ('Paris', 'Île-de-France'), ('Quito', 'Pichincha'), ('Rome', 'Lazio'),
        ('São Paulo', 'São Paulo'), ('Tokyo', 'Tokyo')
    ),
    types (type) AS (VALUES
        ('concert'), ('meetup'), ('workshop'), ('reading'), ('exhibition'), ('festival'), ('conference')
    )
UPDATE events
SET state = coalesce((SELECT places.state FROM places WHERE places.location = events.location), location),
    type = coalesce((SELECT types.type FROM types WHERE events.title LIKE types.type || ' %'), 'meetup');

CREATE INDEX events_by_state ON events (state, published, starts_at, id);
