-- The passwords are `alice-demo`, `bob-demo` and `carol-demo`.
INSERT INTO users (id, name, team, password_hash) VALUES
    (1, 'alice', 'payments', '$argon2id$v=19$m=19456,t=2,p=1$cnEtZGVtby1zYWx0LTAwMQ$1WTq092UAr2ZfDAybys+kfTAFcO1WCFerSnE/E6WqYA'),
    (2, 'bob', 'payments', '$argon2id$v=19$m=19456,t=2,p=1$cnEtZGVtby1zYWx0LTAwMg$PcUUDJAU4RnbmgUmaWXIxZoyf2PoO/Z6h7yHzthFCMo'),
    (3, 'carol', 'search', '$argon2id$v=19$m=19456,t=2,p=1$cnEtZGVtby1zYWx0LTAwMw$PNxSHqvHKnvceTvDPqnCXoPmDu3WQdo6FRHM+vNNh28');
INSERT INTO requirements (id, team, title, description, folded, status) VALUES
    (1, 'payments', 'Refund a payment', 'A clerk returns an amount to the card.', 'refund a payment a clerk returns an amount to the card.', 'draft'),
    (2, 'payments', 'Pay by invoice', 'Companies pay within 30 days.', 'pay by invoice companies pay within 30 days.', 'accepted'),
    (3, 'search', 'Find by place', 'A visitor sees what is near.', 'find by place a visitor sees what is near.', 'draft');
INSERT INTO features (id, requirement_id, title, status) VALUES
    (1, 1, 'A button for refunds', 'proposed'),
    (2, 1, 'A mail to the customer', 'proposed'),
    (3, 2, 'A PDF of the invoice', 'planned');
INSERT INTO schemas (name, fields) VALUES
    ('requirement', '[{"name":"title","kind":"text","required":true},{"name":"priority","kind":"number","required":false}]');
