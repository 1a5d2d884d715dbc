// Pushes with @parse/node-apn: reads one JSON document from stdin, writes one to stdout.
// In: {modules, address, port, cert, key, ca, topic, magic, tokens}. Out: {sent: [...], failed: [...]} as the package gives them.
'use strict';

const path = require('path');

let text = '';
process.stdin.on('data', part => (text += part));
process.stdin.on('end', async () => {
  const wanted = JSON.parse(text);
  const apn = require(path.join(wanted.modules, '@parse/node-apn'));
  const provider = new apn.Provider({
    address: wanted.address,
    port: wanted.port,
    cert: wanted.cert,
    key: wanted.key,
    ca: wanted.ca,
    production: true,
  });
  const notification = new apn.Notification();
  if (wanted.topic) {
    notification.topic = wanted.topic;
    notification.pushType = 'mdm';
  }
  notification.rawPayload = { mdm: wanted.magic };
  const result = await provider.send(notification, wanted.tokens);
  provider.shutdown();
  process.stdout.write(JSON.stringify(result));
});
